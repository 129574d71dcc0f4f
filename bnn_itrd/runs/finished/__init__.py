"""The exported files of a finished run, and the commands to go on with."""

"""Images in files: in a folder for each class, or in the layout of a published set; in memory, or read as needed."""

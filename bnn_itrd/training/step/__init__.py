"""One step of a training: the augmentation of its images, its loss, its compilation, the check for finite numbers."""

"""The pass `channels_last`, which changes a graph's images from the layout (n, c, h, w) to (n, h, w, c)."""

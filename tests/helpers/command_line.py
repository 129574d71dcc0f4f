"""Command line options for a run on small images that takes seconds."""

from __future__ import annotations

from helpers import TINY

SMALL = [*TINY, "--data.image_size=16", "--network.name=resnet8", "--network.width=0.5", "--log.tensorboard=false"]

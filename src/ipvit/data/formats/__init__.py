"""The layouts that images lie in: class folders and tar files, timm's data sets, masks, ImageNet-C, cue conflicts."""

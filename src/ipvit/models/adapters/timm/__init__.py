"""What is inside timm's networks: one file a kind of family."""

"""Where networks come from: timm, torchvision, Hugging Face, the paper, and files of the user's own."""

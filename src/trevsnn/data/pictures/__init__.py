"""Sets of pictures: in memory, in folders, from ImageNet's archives; and their transforms."""

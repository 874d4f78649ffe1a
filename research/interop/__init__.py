"""Published weights in and out: the layout of Hugging Face transformers."""

from research.interop.folder import FAMILIES, Published, is_published, read_folder, write_folder

__all__ = ["FAMILIES", "Published", "is_published", "read_folder", "write_folder"]

"""Published weights in and out: the layout of Hugging Face transformers."""

from research.interop.adapter_files import fingerprint, holds_adapters, read_adapters, write_adapters
from research.interop.folder import FAMILIES, Published, is_published, read_folder, write_folder
from research.interop.image_folder import IMAGE_FAMILIES, holds_images, read_image_folder, write_image_folder
from research.interop.pair_folder import holds_pairs, read_pair_folder, write_pair_folder

__all__ = [
    "FAMILIES",
    "IMAGE_FAMILIES",
    "Published",
    "fingerprint",
    "holds_adapters",
    "holds_images",
    "holds_pairs",
    "is_published",
    "read_adapters",
    "read_folder",
    "read_image_folder",
    "read_pair_folder",
    "write_adapters",
    "write_folder",
    "write_image_folder",
    "write_pair_folder",
]

"""Images: from folders, arrays and data sets to uint8 tensors, and back to files. Needs the extra `lexel[train]`."""

try:
    import numpy  # noqa: F401
    import PIL  # noqa: F401
except ImportError as error:
    raise ImportError("lexel.data.images needs Pillow and numpy: pip install 'lexel[train]'") from error

from lexel.data.examples import listed
from lexel.data.images.measure import constant_error, psnr, ssim
from lexel.data.images.open import Images, open_images
from lexel.data.images.write import save_image, to_pixels

__all__ = ["Images", "constant_error", "listed", "open_images", "psnr", "save_image", "ssim", "to_pixels"]

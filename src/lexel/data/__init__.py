"""Everything that depends on the kind of data; the other rooms do not ask whether it is images.

Each kind is a folder here, which does five things:

- **open**: find the examples at a path (`open_images`);
- **batch**: read an example as a tensor when it is needed, in any process (`Examples`, which every kind shares);
- **write back**: write an example that a model made into a file (`save_image`);
- **measure**: compute how far a copy is from its original (`psnr`, `ssim`);
- **show**: draw pictures of both (`lexel.data.pictures`).
"""

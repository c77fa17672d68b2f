"""What a kind of data says for itself; nothing above this room asks whether it holds pictures.

A kind is a folder here, and answers five questions:

- **open**: what stands at a path, as a set of examples (`open_images`);
- **batch**: an example is a tensor, read when asked for, in any process (`Examples`, which every kind shares);
- **write back**: an example that a model made, as a file (`save_image`);
- **measure**: how far a copy is from its original (`psnr`, `ssim`);
- **show**: pictures of both (`lexel.data.pictures`).
"""

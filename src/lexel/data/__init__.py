"""Everything that depends on the kind of data; the other rooms do not ask whether it is images.

Each kind is a folder here, whose file `kind.py` holds one object, a `Kind`, that does five things:

- **open**: find the examples at a path (`Kind.open`);
- **batch**: read an example as a tensor when it is needed, in any process (`Examples`, which every kind shares), and
  turn many of one size (`batches`) into a model's inputs (`Kind.inputs`);
- **write back**: write examples that a model made, each into a file or all into one (`Kind.examples`, `Kind.writer`);
- **measure**: compute how far a copy is from its original (`Kind.measure`);
- **show**: draw pictures of both (`Kind.show`).

A model names its kind (`VQVAE.kind`), and so does a set of tokens; `kind_of` returns it. A further kind is a folder
with such a file, and a line in the table of `lexel.data.kind`.
"""

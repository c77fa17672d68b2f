"""A model as two ONNX files, which onnxruntime runs without torch or Lexel: examples to indices, and indices back."""

from lexel.export.write import DECODER, ENCODER, FACTS, Exported, Verdict, export

__all__ = ["DECODER", "ENCODER", "FACTS", "Exported", "Verdict", "export"]

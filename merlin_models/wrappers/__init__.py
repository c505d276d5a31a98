"""What the wrappers of other libraries share: their protocol, their columns and their rankings. No TensorFlow here."""

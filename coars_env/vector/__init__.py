"""Many games at once: in arrays, in words, or one side of them for Gymnasium."""

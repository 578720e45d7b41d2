"""PolCLIP (Yang et al., ACL 2024): one model for the sense of a word in text and in pictures.
Records, packing, model, losses, training, evaluation.
"""

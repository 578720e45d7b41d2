"""All that exists because no model or data hub answers: EmojiWSD, the lite encoder with its twins,
and the rehearsal on tiny random checkpoints.
"""

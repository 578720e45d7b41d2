"""EmojiWSD, the built-in set: ambiguous words, hand-written phrases, two drawings of every sense.
See docs/emojiwsd.md.
"""

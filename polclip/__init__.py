"""The second paper's model, rebuilt (Yang et al., ACL 2024). Read first: model, losses, config.

model, losses, blocks     what is computed; `backbone`: the two towers that it stands on
config                    all that decides a run (presets.yml, ablations.yml)
records, packing, batches from questions of word sense disambiguation to tensors
train, checkpoints        the loop, stopped and taken up at any step
evaluate, look            scores at test, and a look inside
published, pickles        the authors' files, read without executing any of them
streaming, states         what is too large to hold, what is computed once
sources, paper, study     what is trained on and tested with, by name
runs                      seeds and ablations, each trained once and kept
"""

"""The lite encoder: a CLIP-like dual encoder made of packages and one shipped head, on the CPU,
without a model hub.

Two frozen networks: EfficientNet-Lite0 with ImageNet weights (Tan & Le 2019; Apache-2.0) sees,
all-MiniLM-L6-v2 (Wang et al. 2020, Reimers & Gurevych 2019; Apache-2.0) reads. The text vector is
MiniLM's own, less the mean of names; the picture's is brought into the same space:

    t(text)  = normalise(text - mean text vector of the training names)
    v(image) = normalise((a + b * sure + c * strange) * conse(image) + head(summary(image)))
    conse    = normalise(sum over the 50 likeliest ImageNet classes of p(class) * (text(class name)
    - mean over the classes))
    summary  = mean and maximum over places of five blocks and the last layer: 4,048 numbers
    head     = standardise, layer norm, linear, GELU, linear -> 384
    sure     = the largest p(class)
    strange  = log of the mean square of the standardised last layer, at least 0: about 0 for
    drawings, 2.5 for photographs, which the head has never seen and the classifier knows

`conse` needs no training (Norouzi et al. 2013, "Zero-shot learning by convex combination of
semantic embeddings"). Head, a and b were trained contrastively with both networks locked (LiT, Zhai
et al. 2022) on drawings with names, from packages (`drawings`), and are shipped beside this file;
`python -m vwsd_standins.lite.train` makes them again. No emoji of an EmojiWSD sense was trained on,
in any design, nor a variant of it under the same name. What the backbone learnt from ImageNet
overlaps with the senses all the same: a crane is one of its classes.
"""

from .encoder import (  # noqa: F401
    HEAD,
    LiteEncoder,
    apply_head,
    conse,
    head_digest,
    load_lite,
    read_head,
)
from .towers import (  # noqa: F401
    FEATURES,
    IMAGE_BATCH,
    SIDE,
    SUMMARY,
    Towers,
    View,
    check_files,
    class_names,
    places,
    summary,
    to_pixels,
)

"""Random changes of training examples, for any number of axes.

``options``   which changes, how strong and how often: :class:`dynunet.data.Augment`
``presets``   what is chosen by the task and the number of axes
``chance``    whether a change happens, and how strong it is
``geometry``  places: mirroring, rotation, scale, shear, shift, elastic deformation
``values``    values: contrast, noise, blur, ...
``item``      an example in which everything is changed alike

Every change has *parameters*, a few numbers that are 0 if it does nothing. They are what a generative model
is told as its ``features``, so that its samples, made with zeros, look like the data and not like the changed
data (Karras et al. 2022, appendix F.2)::

    mirroring, rotation, scale, stretch, shear, shift   k^2 + k: the matrix that moves what is seen, less the
                                                        identity, row by row; then the shift; of the k axes
    elastic, noise, blur    1: the strength as a share of the greatest
    gamma, contrast, gain, resolution                   1: the logarithm of the factor
    brightness              1: what is added
    filter                  3: the terms of its curve, as shares of the greatest
    erase                   2 n: where the box begins and how long it is, as shares of the n axes
    band_stop               2: where the band begins and how wide it is, as shares of all frequencies
"""

from .options import Augment

__all__ = ["Augment"]

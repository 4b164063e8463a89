"""The parts that models are made of. Each owns its weights and says what it computes.

One shape legend for the whole package::

    T   tokens of the chunk at hand            H   query heads
    S   positions in the KV cache              K   key/value heads
    E   width of the residual stream           D   width of a head
    F   width of an expert (or dense FFN)      N   experts of a layer
    V   vocabulary                             k   experts chosen for a token
"""

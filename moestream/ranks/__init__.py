"""Several machines that share a model, each with some of its layers, on ``mx.distributed``.

``mlx.launch`` starts one process a machine, a *rank*. The first has the embedding, the output and
the user; what leaves its layers goes from rank to rank, and from the last back to it. Read
``launch``, ``link`` and ``message`` for how they talk, ``hello`` and ``division`` for who gets
which layers, ``far`` and ``stage`` for how a pass runs.
"""

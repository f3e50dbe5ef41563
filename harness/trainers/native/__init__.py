"""GPT and MoE on torch alone: what the harness trains where no other trainer is asked for.

Shapes are written in Megatron-LM's letters, ``[s, b, h]``: at the end of a line that of what the line makes,
in a docstring those of what goes in and what comes out. They are of one rank's own part;
``tests/native/test_shapes.py`` holds every one of them against real runs.

    s     sequence length
    b     samples of a micro-batch
    h     hidden size
    a     attention heads
    d     width of one head, h/a
    f     inner width of an MLP or of an expert
    v     vocabulary, padded so that TP cuts it into equal parts
    e     experts
    k     experts that a token is sent to
    t     tokens that one rank sends to experts, s(/tp)*b
    i, o  inputs and outputs of a linear layer
    m     micro-batches of a step, of one replica
    p     elements of all parameters of one optimizer, padded so that its replicas cut them into equal parts
    r     replicas of those parameters: dp, or edp of an expert's
    g     members of a group
    n     rows, as many as there are

    tp, pp, dp      tensor-, pipeline- and data-parallel size
    ep, etp, edp    the same of the experts: expert-, tensor- and data-parallel size

``s(/tp)`` is s/tp under sequence parallelism, else s. ``p(/r)`` is p/r under the distributed optimizer,
else p. ``…`` is any number of dimensions.
"""

"""How the ranks of the native trainer talk.

``world.py`` says what the trainer may ask for. Two backends give it: ``torch_world.py`` (gloo, NCCL) and,
for ranks on one host, ``shared_world.py`` with its ``shared_group.py`` (collectives) and ``shared_pipe.py``
(messages) in ``shared_memory.py``. ``reductions.py`` is what both mean by a sum.
"""

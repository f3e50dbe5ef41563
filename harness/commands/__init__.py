"""``harness cases``, ``harness goldens`` and ``harness checkpoint``: their options, and what they print.

A module each. Nothing heavy is imported before it is known what to do: the options of all of them are
made for every ``--help``.
"""

"""Cases: ``model_config.yaml`` → :class:`Case`; their arguments as the words of a command line."""

from harness.cases.case import Case, Command, HarnessKeys, case_is_there, case_name, find_case, load_case

__all__ = ["Case", "Command", "HarnessKeys", "case_is_there", "case_name", "find_case", "load_case"]

"""What a metric's name says of its unit: seconds, bytes, work per second.

Frameworks write the unit into the name (``memory/max_active(GiB)``, ``mfu(%)``), or a word
(``data_time``, ``perf/max_memory_allocated_gb``). Patterns are looked for in any case, anywhere in a name.
"""

from __future__ import annotations

import re
from typing import Final

_WORD = r"(?:^|[-_ /.:])"  # where a word begins, as names are put together
_SECONDS = r"[(\[{]\s*(?:s|secs?|seconds?|ms|msecs?|us|µs|ns|min|minutes?|h|hours?)\s*[)\]}]"
_BYTES = r"[(\[{]\s*(?:[kmgt]i?b|b|bytes)\s*[)\]}]"
_PERCENT = r"[(\[{]\s*%\s*[)\]}]"
_WORDS = r"(?:[a-z0-9]+[-_ /.])*"
_OF_NO_MODEL = rf"[-_ /.](?!.*(?:expert|router|codebook)){_WORDS}"
_COUNTED = r"(?:train[-_ ])?(?:tokens|samples|examples|sequences|batches|documents)"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_COSTS = rf"time|timing|throughput|per[-_ ]?sec|/s(?:ec)?(?:ond)?$|{_SECONDS}|{_BYTES}"
#: What tells of training is no cost, whatever else its name says: ``memory/loss``, ``loss_s``.
TRAINING: Final = _any(
    r"(?:^|.*[^a-z])(?:\w*loss|\w*norm|ppl|perplexity|acc|accuracy|lr|learning[-_ ]rate|reward|kl|entropy|"
    r"grad\w*|score|bleu|rouge|f1|precision|recall|r?mse|mae|nll|[wc]er)"
    rf"(?:$|[^a-z])(?!.*(?:{_COSTS}))",
    # How much of the data is left; a step size that has the letter's name.
    rf"{_WORD}remaining[-_ ]{_COUNTED}$|{_WORD}{_COUNTED}[-_ ]remaining$",
    r"(?:ddim|sampler|optim\w*|langevin)[-_ /.]eta$",
)
#: When it was, how long it has been and will be; work per second, which the time says as well; sensors.
SHARED_BY_NO_TWO_RUNS: Final = _any(
    rf"{_WORD}(?:time[-_ ]?stamps?|wall[-_ ]?(?:time|clock)|created[-_ ]at|now|elapsed|eta|remaining|"
    r"unix[-_ ]?time)(?![a-z])",
    r"^_(?:runtime|timestamp)$",  # Weights & Biases' own
    r"throughput|tflop",
    r"per[-_ ]?(?:(?:gpu|device|rank|node)[-_ ]per[-_ ]?)?sec(?:ond)?s?"
    r"(?:[-_ /]?per[-_ ]?(?:gpu|device|rank|node|chip))?$",
    r"/ ?s(?:ec)?(?:ond)?s?(?:/(?:gpu|device|rank|node|chip))?$",
    rf"{_WORD}(?:mfu|hfu|tps|tgs|wps|ups|qps|fps|it[-_ ]?s|flops?[-_ /](?:s|sec|util\w*))(?![a-z])",
    rf"{_WORD}(?:gpu\d*|cpu|device|sm|nvml|system|power|energy|disk|network|proc){_OF_NO_MODEL}"
    r"(?:util\w*|temp\w*|power\w*|watts?|percent|clock)(?![a-z])",
    # Of a system of atoms, or of a network, these are what is trained.
    rf"{_WORD}(?:gpu\d*|cpu|device|sm|nvml|power|disk|proc){_OF_NO_MODEL}"
    r"(?:energy|load)(?![a-z])",
    r"[(\[{]\s*(?:/s|[a-z]+/(?:s|sec|second|gpu|device)[^)\]}]*|tflops?|watts?|w|joules?|j|°?c)\s*[)\]}]$",
    rf"(?:time|timing|data[-_ ]loading|wait|idle)\w*[-_ /]?.*{_PERCENT}$",
)
SECONDS: Final = _any(
    rf"{_SECONDS}$",
    r"[-_ ](?:in[-_ ])?(?:ms|msecs?|millis\w*|us|usecs?|micros\w*|ns|secs?|seconds)$",
    r"[-_ ]in[-_ ]s$",
    rf"{_WORD}(?:s|ms|us|secs?|seconds?|msecs?|millis\w*|minutes|hours?)[-_ ]?(?:per[-_ ]?|/)"
    r"(?:gpu[-_ ])?(?:\d+[-_ ])?"
    r"(?:it\w*|steps?|batch\w*|epochs?|updates?|samples?|examples?|tokens?|images?|k?img)$",
    r"^(?:(?:perf|speed|train|time|timing)[-_/])?dt(?:[-_ ]?(?:s|ms))?$",
    rf"{_WORD}(?:secs|seconds|minutes|hours)$",
    rf"{_WORD}(?:time|timing|timer|latency|duration|elapsed)(?:[-_ ]per[-_ ]\w+|[-_ ]?(?:s|ms))?$",
    rf"{_WORD}train[-_ ]wall$",
    rf"{_WORD}(?:timing|time[-_ ]metrics|timers?)(?:[-_ ](?:s|ms|raw|per\w*))*/",
    r"(?:^|[-_ /])(?:run)?time$",
)
BYTES: Final = _any(
    rf"^mem-|{_BYTES}$",
    r"[-_ /](?:bytes|[kmgt]ib|[gt]b)$",
    rf"{_WORD}(?:bytes[-_ /.]|gb[-_ ]free$)",
    r"(?:mem|alloc|vram|rss|cache|usage).*[-_ /][km]b$",
    rf"{_WORD}(?:(?:gpu|cpu|cuda|vram|ram|host|device|peak|max)[-_ /.])*(?:mem|memory|vram|rss)"
    rf"(?:[-_ /.]{_WORDS}(?:alloc\w*|reserved|active|used|usage|free|peak|max\w*|cached|ooms|"
    r"num[-_ ](?:alloc\w*|ooms|sync\w*|device\w*)|"
    r"retries|inactive\w*|total|percent)\b.*)?$",
)
_SHARE = _any(rf"{_PERCENT}$", r"[-_ /]percent$")
_UNIT = _any(r"(?:[-_ /]|[(\[{]\s*)([kmgt])i?b\s*[)\]}]?$")


def unit_of(metric: str) -> float:
    """Bytes in one of a memory's units, as its name says: GiB, MB; where it says nothing, one.

    Of a share of all memory, in percent, one counts as much as 64 MiB.
    """
    if _SHARE.search(metric):
        return float(64 << 20)
    unit = _UNIT.search(metric)
    return float(1 << 10 * ("kmgt".index(unit[1].lower()) + 1)) if unit else 1.0

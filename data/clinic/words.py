"""Small tools for text that exists in two languages.

The tables write one meaning as "english|chinese", and a list of meanings as "a|甲; b|乙", so that the two wordings
stand side by side and cannot drift apart.
"""

import string

LANGUAGES = ("en", "zh")


def say(both, language):
    """The wording of "english|chinese" in one language; a text without a bar is the same in both."""
    parts = both.split("|")
    return parts[-1] if language == "zh" else parts[0]


def items(text):
    """The entries of a "; " list.

    >>> items("a|甲; b|乙")
    ['a|甲', 'b|乙']
    """
    return [part.strip() for part in text.split(";") if part.strip()]


def span(text):
    """(low, high) of "4-9"; the order is kept, because "95-86" means: 95 in the mildest case, 86 in the worst."""
    low, high = text.split("-")
    return float(low), float(high)


def fill(text, slots):
    """Put a case's particulars ({side}, {mm}) into a sentence; unknown braces are an error of the table."""
    return string.Formatter().vformat(text, (), slots)


def sentence(text):
    """Upper-case the first letter, unless the word is spelled its own way, and end with a full stop.

    >>> sentence("no acute distress"), sentence("eGFR 34")
    ('No acute distress.', 'eGFR 34.')
    """
    text = text.strip()
    first = text[:1].upper() if text.split(" ")[0].islower() else text[:1]
    return first + text[1:] + ("" if text[-1:] in ".?!" else ".")


def listed(parts, last="and"):
    """An English enumeration.

    >>> listed(["fever", "cough", "rigors"])
    'fever, cough and rigors'
    """
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + f" {last} " + parts[-1]


def article(noun):
    """'a' or 'an' before a noun or a number in digits.

    >>> article("80-year-old"), article("62-year-old"), article("18-year-old"), article("ulcer")
    ('an', 'a', 'an', 'an')
    """
    if noun[:1].isdigit():
        return "an" if noun.startswith("8") or noun[:2] in ("11", "18") else "a"
    return "an" if noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "ure", "eu", "uri")) else "a"

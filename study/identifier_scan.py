"""What tells who a person is, in the text of a file that must not hold it: found by kind, never repeated.

The kinds are NHS numbers, names, postcodes, e-mail addresses, telephone numbers and dates of birth. A text is judged by
itself, and a column also by what it is called. Nothing here returns a value: callers get kinds and places.

Judgement calls:

- Ten digits are an NHS number if the check digit fits and the study itself made no such identifier. One in eleven
  ten-digit references of another system fits too; a person decides on those.
- A name is a title or a salutation with a capitalised word; a known given name next to a capitalised word that is
  neither an institution nor a time; or a given name that is also an ordinary word ("Grace", "Mark") next to a known
  family name that is not. Names of staff count too: nobody can tell whose a name is. A name that is in no list, with
  neither a title nor a telling column, is not found.
- A postcode is a whole one, of an area that exists. The first half alone ("LU1") covers thousands of households and is
  let through, and so is a year of birth.
- An e-mail address of an office ("enquiries@"), and a number that only organisations have (03, 08), are let through.
- A date of birth is any date in a column called so, any date next to the words, and otherwise a whole date 18 to 110
  years back in a column that the study has not declared to hold dates.

Source of the rules: the identifiers of check family 10 of the study's data-quality rules; the check digit is that of
the NHS Data Dictionary (modulus 11), the shape of a postcode that of BS 7666.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, get_args

import phonenumbers
from stdnum.gb import nhs

IdentifierKind = Literal["nhs_number", "name", "postcode", "email", "telephone", "birth_date"]
IDENTIFIER_KINDS: tuple[IdentifierKind, ...] = get_args(IdentifierKind)
KIND_WORDS: Mapping[IdentifierKind, str] = {
    "nhs_number": "an NHS number",
    "name": "a name",
    "postcode": "a postcode",
    "email": "an e-mail address",
    "telephone": "a telephone number",
    "birth_date": "a date of birth",
}
Spot = Literal[
    "cell", "comment", "header_footer", "text_box", "link", "check", "sheet_name", "defined_name", "document_property",
    "file_name", "other",
]  # fmt: skip
SPOT_WORDS: Mapping[Spot, str] = {
    "cell": "",
    "comment": "in a comment",
    "header_footer": "in the header or footer",
    "text_box": "in a text box or chart",
    "link": "in a link",
    "check": "in a drop-down or its message",
    "sheet_name": "in the name of the sheet",
    "defined_name": "in the name of a range",
    "document_property": "in the file's properties",
    "file_name": "in the name of the file",
    "other": "in a hidden part of the file",
}


class Place(NamedTuple):
    """Where something was found, and of what kind. `sheet`: a code of the layout, "sheet_4" for one that it does not
    know, "" for the file; `cell`: an address, "" where there is none."""

    sheet: str
    cell: str
    spot: Spot
    kind: IdentifierKind

    @property
    def words(self) -> str:
        """ "a name, in a comment": what was found, and what kind of place it is."""
        return ", ".join(filter(None, (KIND_WORDS[self.kind], SPOT_WORDS[self.spot])))

    @property
    def code(self) -> str:
        """As the ledger keeps it: "sheet_4 B7 comment name"."""
        return " ".join(filter(None, (self.sheet, self.cell, self.spot, self.kind)))


@dataclass(frozen=True)
class NameLists:
    """Names in small letters without accents. `given_words`, `family_words`: those that are ordinary words too;
    `never`: words of institutions and times, beside which a name is that of a thing ("Victoria Ward").
    `common`: family names so common, and so seldom anything else, that any capitalised word before them is a name."""

    given: frozenset[str] = frozenset()
    given_words: frozenset[str] = frozenset()
    family: frozenset[str] = frozenset()
    family_words: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()
    common: frozenset[str] = frozenset()

    def is_given(self, word: str) -> bool:
        return word in self.given or word in self.given_words

    def is_family(self, word: str) -> bool:
        return word in self.family or word in self.family_words or word in self.common


@dataclass(frozen=True)
class Scanner:
    """What texts are judged by: lists of names, the day, and which texts are identifiers that the study made itself."""

    names: NameLists
    today: date
    is_own: Callable[[str], bool] = lambda text: False

    def find_kinds(self, text: str) -> set[IdentifierKind]:
        """The kinds of identifier in one text."""
        return self.scan([text]).get(0, set())

    def scan(self, texts: Sequence[str]) -> dict[int, set[IdentifierKind]]:
        """The kinds in each of many texts, by its place among them; texts with none are left out.

        All texts are searched as one, so that many short ones cost little more than one long one.
        """
        joined = f"{_BREAK}{fold_text(_BREAK.join(texts))}{_BREAK}"
        starts: list[int] = []
        found: dict[int, set[IdentifierKind]] = {}
        for kind, position in self._find_all(joined):
            if not starts:
                starts = list(accumulate((len(text) + 1 for text in joined[1:-1].split(_BREAK)), initial=1))
            found.setdefault(bisect_right(starts, position) - 1, set()).add(kind)
        return found

    def _find_all(self, text: str) -> Iterator[tuple[IdentifierKind, int]]:
        yield from (("email", place) for place in _find_emails(text))
        yield from self._find_numbers(text)
        yield from (("postcode", place) for place in _find_postcodes(text))
        yield from (("birth_date", place) for place in self._find_birth_dates(text))
        yield from (("name", place) for place in _find_names(text, self.names))

    def _find_numbers(self, text: str) -> Iterator[tuple[IdentifierKind, int]]:
        for match in _DIGITS.finditer(text):
            start = match.start()
            if text[start - 1 : start] in ("(", "+"):
                start -= 1
            if text[start - 1 : start] == ".":
                continue
            run = text[start : match.end()]
            for found in _NHS.finditer(run):
                if is_nhs_number(found[0]) and not self.is_own(found[0]):
                    yield "nhs_number", start + found.start()
            for found in _TELEPHONE.finditer(run):
                if _is_telephone(found[0]) and not self.is_own(found[0].strip()):
                    yield "telephone", start + found.start()

    def _find_birth_dates(self, text: str) -> Iterator[int]:
        small = text.lower()
        if "born" in small or "birth" in small or "d.o.b" in small or "dob" in small or "d o b" in small:
            yield from (match.start() for match in _LABELLED_BIRTH.finditer(text))
        for year in _YEAR.finditer(text):
            before = text[max(year.start() - 24, 0) : year.start()]
            around = before + text[year.start() : year.end() + 8]
            for match in _DATE.finditer(around):
                day = parse_written_date(match[0])
                if match.start() <= len(before) < match.end() and day is not None and is_birth_day(day, self.today):
                    yield year.start()


# --- Texts ------------------------------------------------------------------------------------------------------------


def _split(words: str) -> frozenset[str]:
    return frozenset(words.split())


_BREAK = "\x00"  # stands in no text of XML or CSV, and is no blank to a pattern
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
_LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ß": "ss", "æ": "ae", "Æ": "Ae",
                          "ı": "i", "ð": "d", "þ": "th", "’": "'", "‘": "'", "ʼ": "'", "‐": "-", "‑": "-", "‒": "-",
                          "–": "-", "—": "-", "−": "-"})  # fmt: skip


def fold_text(text: str) -> str:
    """A text for searching: full-width characters and accented letters as plain ones, no invisible characters."""
    if text.isascii():
        return text
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS)).translate(_INVISIBLE)
    return "".join(c for c in plain if not unicodedata.combining(c)) if not plain.isascii() else plain


_AT = re.compile(r"@|[\[(] ?at ?[\])]")
_LOCAL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}")
_OFFICES = _split(
    "admin administrator adults asc ascs callcentre care carers collection collections contact contactus "
    "council customer customers data datacollections enquiries enquiry evaluation feedback hello help "
    "helpdesk info information mail mailbox nhs no noreply office postmaster quality reception reply research "
    "returns social socialcare statistics stats study summative support survey surveys team "
    "webmaster"
)


def _find_emails(text: str) -> Iterator[int]:
    for match in _AT.finditer(text):
        local = _LOCAL.search(text[max(match.start() - 66, 0) : match.start()].rstrip(" "))
        if local and _DOMAIN.match(text[match.end() : match.end() + 450].lstrip(" ")):
            words = [word for word in re.split(r"[._+'-]", local[0].casefold()) if word]
            if not words or not all(word in _OFFICES for word in words):
                yield match.start()


# Patterns begin with a set of characters, and not with a look behind: so whole workbooks are passed over quickly.
_DIGITS = re.compile(r"[0-9](?:[ ().-]{0,3}[0-9]){8,17}(?![\w])(?!\.\d)")
_OFFICE_NUMBERS = re.compile(r"(?:44|0)?(?:3[0-9]|8[04578])[0-9]{6,8}")
_NHS = re.compile(r"(?<![\d+.-])\d{3}([ -]?)\d{3}\1\d{4}(?![\d]|[.-]\d)")
_TELEPHONE = re.compile(
    r"(?<![\d.])(?:(?:\+|00)44[ .-]?(?:\(0\)[ .-]?)?[1-9]\d{1,4}|\(?0[123789]\d{1,4}\)?)"
    r"(?:[ .-]{0,2}\d{2,8}){1,3}(?!\d)"
    r"|(?<!\d)\+[1-9](?:[ ().-]{0,2}\d){8,13}(?!\d)|\(\d{3}\) ?\d{3}-\d{4}(?!\d)"
)


def is_nhs_number(text: str) -> bool:
    """Ten digits whose last fits the others; the same digit ten times is nobody's."""
    digits = re.sub(r"\D", "", text)
    return len(digits) == 10 and len(set(digits)) > 1 and nhs.is_valid(digits)


def _is_telephone(text: str) -> bool:
    """A number that could be dialled from England. The numbers kept for plays and tests count too."""
    digits = re.sub(r"\D", "", text)
    if len(set(digits)) < 3 or _OFFICE_NUMBERS.fullmatch(digits.removeprefix("00")):
        return False
    if text.startswith("(") and not text.startswith("(0"):
        return True
    if digits.startswith("00"):
        text = f"+{digits[2:]}"
    try:
        parsed = phonenumbers.parse(text, "GB")
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number(parsed) and (
        parsed.country_code != 44 or (parsed.national_number or 0) >= 10**8
    )


_INWARD = re.compile(r"[0-9][ABD-HJLNP-UW-Zabd-hjlnp-uw-z]{2}(?![\w@])")
_OUTWARD = re.compile(r"(?<![\w.@/&-])([A-PR-UWYZ][A-HK-Y]?)([0-9][A-Z0-9]?)([ ]{0,2})$", re.IGNORECASE)
_AREAS = _split(
    "AB AL B BA BB BD BF BH BL BN BR BS BT CA CB CF CH CM CO CR CT CV CW DA DD DE DG DH DL DN DT DY E EC EH EN EX "
    "FK FY G GL GU GY HA HD HG HP HR HS HU HX IG IM IP IV JE KA KT KW KY L LA LD LE LL LN LS LU M ME MK ML N NE "
    "NG NN NP NR NW OL OX PA PE PH PL PO PR RG RH RM S SA SE SG SK SL SM SN SO SP SR SS ST SW SY TA TD TF TN TQ "
    "TR TS TW UB W WA WC WD WF WN WR WS WV YO ZE"
)
_ORDINAL = re.compile(r"1st|2nd|3rd|\dth")


def _find_postcodes(text: str) -> Iterator[int]:
    for match in _INWARD.finditer(text):
        before = text[max(match.start() - 8, 0) : match.start()]
        outward = _OUTWARD.search(before)
        if outward is None or outward[1].upper() not in _AREAS:
            continue
        if len(outward[1]) == 1 and _ORDINAL.fullmatch(match[0]):  # "w2 2nd": the second of week 2
            continue
        # Codes such as "e101ab" are written together in small letters; postcodes are not, unless by themselves.
        whole = outward[0] + match[0]
        is_alone = before[: outward.start()][-1:] in ("", _BREAK) and text[match.end() : match.end() + 1] == _BREAK
        if outward[3] or is_alone or whole.isupper():
            yield match.start()


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    r"(?<![\w./-])(?:\d{1,2}([./ -])\d{1,2}\1(?:19|20)\d{2}|(?:19|20)\d{2}([./-])\d{1,2}\2\d{1,2}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ .-]{{1,2}}(?:of )?{_MONTH}[ ,.-]{{1,2}}(?:19|20)\d{{2}}"
    rf"|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d{{2}})(?![\d/])",
    re.IGNORECASE,
)
_BIRTH_WORDS = r"\b(?:d\.? ?o\.? ?b\b\.?|date of birth|birth ?-?date|birthday|born)"
_LABELLED_BIRTH = re.compile(
    rf"{_BIRTH_WORDS}(?: ?[:=-]| is| was| on| the)*[ ]{{0,2}}(?:\d{{1,2}}[./ -]\d{{1,2}}[./ -](?:\d{{4}}|\d{{2}})(?!\d)"
    rf"|\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}(?:st|nd|rd|th)?[ -]{{1,2}}(?:of )?{_MONTH}[ ,-]{{1,2}}\d{{2,4}}"
    rf"|{_MONTH} \d{{1,2}},? \d{{4}})",
    re.IGNORECASE,
)
_YEAR = re.compile(r"[12][09][0-9]{2}(?![0-9])")
YOUNGEST, OLDEST = 18, 110
"""Years back between which a whole date that nobody declared is taken for a date of birth."""


def parse_written_date(text: str) -> date | None:
    """The day that a text writes, day before month as in England, month before day where that alone is possible."""
    found = re.search(_MONTH, text, re.IGNORECASE)
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    year = next((number for number in numbers if number > 999), 0)
    others = [number for number in numbers if number != year]
    if found and len(others) == 1:
        tries = [(_MONTHS.index(found[0][:3].lower()) + 1, others[0])]
    elif len(others) == 2:
        first, second = others
        tries = [(first, second)] if numbers[0] == year else [(second, first), (first, second)]
    else:
        return None
    for month, day in tries:
        try:
            return date(year, month, day)
        except ValueError:
            continue
    return None


def is_birth_day(day: date, today: date) -> bool:
    """Whether a whole day that nobody declared is taken for a date of birth: 18 to 110 years back."""
    years = today.year - day.year - ((today.month, today.day) < (day.month, day.day))
    return YOUNGEST <= years <= OLDEST


# --- Names ------------------------------------------------------------------------------------------------------------

_TITLES = _split("mr mrs miss ms mx dr prof professor sir dame rev revd")
_CUES = _split(
    "dear hi hello regards sincerely thanks is called named wife husband partner daughter son mother father mum dad "
    "sister brother neighbour carer client patient to with by visited told asked met"
)
_CAPITAL = re.compile(r"[A-Z][A-Za-z'-]*[A-Za-z]")
_AFTER = re.compile(r"\.?(,?) +(?:[A-Z]\.? +)*([A-Z][A-Za-z'-]*[A-Za-z])(?![\w'])")
_BEFORE = re.compile(r"(?:^|[^A-Za-z'])([A-Za-z']+)([,:.]?) $")
_INITIALS = re.compile(
    r"\x00(?:(?:[A-Z]\. ?){1,3}([A-Z][A-Za-z'-]*[A-Za-z])|([A-Z][A-Za-z'-]*[A-Za-z]),? (?:[A-Z]\.){1,3})(?=\x00)"
)
_SMALL = re.compile(r"\x00([a-z'-]{2,4}\. )?([a-z'-]{2,}(?: [a-z'-]{2,}){1,2})(?=\x00)")
_TITLE_STOP = _split(
    "appointment appt arrest no not note referral scan surgery the visit visits who letter letters of or and in on"
)


def _find_names(text: str, names: NameLists) -> Iterator[int]:
    """`text` begins and ends with a break."""
    telling = {word for word in set(_CAPITAL.findall(text)) if _is_telling(word, names)}
    for match in _CAPITAL.finditer(text) if telling else ():
        stands_apart = match[0] in telling and not (text[match.start() - 1].isalnum() or text[match.start() - 1] == "'")
        if stands_apart and _is_name_at(match[0], text, match.start(), match.end(), names):
            yield match.start()
    for match in _INITIALS.finditer(text):
        word = (match[1] or match[2]).lower()
        if names.is_family(word) and word not in names.never:
            yield match.start() + 1
    for match in _SMALL.finditer(text):
        if _is_name_in_small(((match[1] or "") + match[2]).replace(".", "").split(" "), names):
            yield match.start() + 1


def _is_telling(word: str, names: NameLists) -> bool:
    small = word.lower()
    return small in _TITLES or small in names.common or names.is_given(small) or names.is_given(_find_stem(word))


_FAMILIES_AND_PLACES = _split(
    "hall ward hill wood green park lane day white black west north field cross gold bush church bridge castle house "
    "lodge winter summer spring bank"
)
_OF_BUILDINGS = _split("hall ward park lane house lodge church castle bridge field")
_GIVEN_TO_BUILDINGS = _split(
    "albert alexandra alfred anne arthur catherine charles charlotte diana edward elizabeth george henry james "
    "margaret mary william"
)


def _is_name_at(word: str, text: str, start: int, end: int, names: NameLists) -> bool:
    """Whether a capitalised word that is a title, a given name or a common family name is a part of a person's name."""
    one, after = word.lower(), _AFTER.match(text, end)
    if one in _TITLES:
        return after is not None and not after[1] and _is_titled(word, after[2], names)
    before = _BEFORE.search(text[max(start - 30, 0) : start])
    if one in names.common and before and not before[2] and _may_be_given(before[1], names):
        return True
    one = _find_stem(word)
    is_of_thing = after is not None and not after[1] and after[2].lower() in names.never  # "House, Albert Road"
    is_turned = before is not None and before[2] == "," and before[1][:1].isupper()
    if before and is_turned and not is_of_thing and _is_turned(before[1].lower(), one, names):
        return True
    if before and before[1].lower() == "st":
        return False
    if one in names.never and not (after and one in names.given_words and after[2].lower() in names.family):
        return False
    is_cued = before is not None and before[1].lower() in _CUES and before[2] != "."
    if is_cued and one in names.given and not word.isupper() and not is_of_thing:
        return True
    return after is not None and not after[1] and _is_followed(word, one, after, text, start, names)


def _is_turned(family: str, given: str, names: NameLists) -> bool:
    """Whether "Smith, Jean" is a name."""
    if given not in names.given:
        return given in names.given_words and family in names.family and family not in names.never
    return names.is_family(family) and (family not in names.never or family in _FAMILIES_AND_PLACES)


def _is_followed(word: str, one: str, after: re.Match[str], text: str, start: int, names: NameLists) -> bool:
    """Whether a given name (`one`, as in `word`) and the capitalised word after it are a person's name."""
    two, follows = after[2].lower(), text[after.end() : after.end() + 2]
    if two in names.never:
        is_building = one in _GIVEN_TO_BUILDINGS and two in _OF_BUILDINGS
        is_last = not (follows[:1] == " " and follows[1:].isupper())
        return one in names.given and two in _FAMILIES_AND_PLACES and is_last and not is_building
    if word.isupper() and after[2].isupper():
        return two in names.family or (one in names.given and names.is_family(two))
    if one in names.given or two in names.family:
        return True
    return text[start - 1] == _BREAK and follows[:1] == _BREAK and two in names.family_words


def _may_be_given(word: str, names: NameLists) -> bool:
    """Whether a word before a common family name can be a given name that is in no list, or an initial."""
    small = word.lower()
    return word[:1].isupper() and small not in names.never and small not in _CUES and len(word) != 2


def _is_titled(title: str, word: str, names: NameLists) -> bool:
    """Whether a capitalised word after a title is a name. "DR", "MR" and "MS" are other things as well."""
    small = word.lower()
    if small in _TITLE_STOP or title == "MS" or (small in names.never and not names.is_family(small)):
        return False
    return not title.isupper() or names.is_family(small)


def _find_stem(word: str) -> str:
    """ "mary" of "Mary-Ann"."""
    return word.lower().partition("-")[0]


def _is_name_in_small(words: Sequence[str], names: NameLists) -> bool:
    """A whole text of two or three words in small letters: a given name that is no other word, and a family name; or a
    title and a family name."""
    if words[0] in _TITLES:
        return names.is_family(words[-1]) and words[1] not in _TITLE_STOP
    return (
        len(words[0]) > 2
        and words[0] in names.given
        and names.is_family(words[-1])
        and not any(word in names.never for word in words[:-1])
        and (words[-1] not in names.never or words[-1] in _FAMILIES_AND_PLACES)
        and (words[-1] in names.family or len(words) == 2)
    )


def find_kinds_in_name(text: str, scanner: Scanner) -> set[IdentifierKind]:
    """The kinds in a name of a file, a sheet or a range, where words are joined by signs or by capitals alone."""
    spaced = re.sub(r"[_+~.,()\[\]{}-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    found = scanner.find_kinds(text) | scanner.find_kinds(re.sub(r" +", " ", spaced).strip())
    digits = re.sub(r"(?<=\d)[ _.-]+(?=\d)", "", text)
    if any(is_nhs_number(run) for run in re.findall(r"(?<!\d)\d{10}(?!\d)", digits)) and not scanner.is_own(text):
        found.add("nhs_number")
    words = [word for word in re.split(r"[^A-Za-z']+", spaced) if len(word) > 1]
    for one, two in pairwise(words):
        pair = (one.lower(), two.lower())
        for given, family in (pair, pair[::-1]):
            if given in scanner.names.given and family in scanner.names.family and family not in scanner.names.never:
                found.add("name")
    return found


# --- Columns that say what they hold ----------------------------------------------------------------------------------

_BIRTH_COLUMN = re.compile(r"\b(?:dob|d o b|date of birth|birth ?date|birth ?day|born(?: on)?)\b")
_PHONE_COLUMN = re.compile(r"\b(?:tele ?phone|phone|mobile|tel|tel no|landline|fax|contact (?:number|no))\b")
_NHS_COLUMN = re.compile(r"\bnhs (?:no|num|number|id|nbr)\b")
_OWN_NAME = re.compile(
    r"\b(?:surname|forenames?|(?:first|last|given|family|middle|full|maiden|birth|preferred) ?names?)\b"
)
_NAME = re.compile(r"\bnames?\b")
_PERSON = re.compile(
    r"\b(?:patients?|clients?|participants?|service users?|persons?|people|carers?|respondents?|residents?|customers?|"
    r"next of kin|nok|kin|emergency|contact|parents?|child(?:ren)?|mother|father|relatives?|guardian|subject|your|who|"
    r"him|her|husband|wife|worker|staff|nurse|doctor|gp|clinician|manager|coordinator|interviewer|researcher)\b"
)
_OF_THINGS = re.compile(
    r"\b(?:site|organi[sz]ation|council|authority|trust|team|file|sheet|tab|variable|field|column|event|form|instrument|"
    r"questionnaire|measure|scale|drug|medicine|brand|product|service name|practice|provider|school|ward|hospital|home|"
    r"project|study|scheme|list|group|model|code|domain|area|region|county|district|town|street|road|table|range|item|"
    r"version|short|la|user ?name|log ?in)\b"
)


def find_column_kind(header: str) -> IdentifierKind | Literal["perhaps_name", ""]:
    """What a column holds by what it is called: a kind, "perhaps_name" for a bare "Name", "" for anything else."""
    if len(header) > 60:
        return ""
    words = re.sub(r"[^a-z0-9]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", fold_text(header)).lower()).strip()
    if not words or len(words.split()) > 8:
        return ""
    if _BIRTH_COLUMN.search(words) and not re.search(r"\b(?:year|month|age)\b", words):
        return "birth_date"
    if _NHS_COLUMN.search(words):
        return "nhs_number"
    if _OWN_NAME.search(words):
        return "name"
    if _NAME.search(words):
        if _PERSON.search(words) and not re.search(r"\b(?:code|file|form|event|team|variable)\b", words):
            return "name"
        return "perhaps_name" if not _OF_THINGS.search(words) and len(words.split()) <= 2 else ""
    return "telephone" if _PHONE_COLUMN.search(words) else ""


_IN_HEADERS = ("name", "birth", "dob", "d.o.b", "born", "phone", "mobile", "tel", "landline", "fax", "contact n", "nhs")


def find_telling_headers(texts: Sequence[str]) -> dict[int, str]:
    """The texts that could be telling names of columns, by their place among all: `find_column_kind` of each."""
    joined = _BREAK.join(texts).lower()
    wanted = [word for word in _IN_HEADERS if word in joined]
    if not wanted:
        return {}
    small = joined.split(_BREAK)
    places = (n for n, text in enumerate(small) if len(text) <= 60 and any(word in text for word in wanted))
    kinds = ((place, find_column_kind(texts[place])) for place in places)
    return {place: kind for place, kind in kinds if kind}


_NO_ANSWER = _split(
    "yes no n/a na none nil unknown not known not given not applicable withheld redacted removed blank missing "
    "other true false anonymous anon tbc tba x xx xxx refused declined given checked deleted hidden confidential"
) | {"not known", "not given", "not applicable", "not answered", "not recorded", "not asked"}


def holds_identifier(column: str, value: object, scanner: Scanner) -> IdentifierKind | None:
    """Whether a value below a telling header (`column`: of `find_column_kind`) is one, and of what kind."""
    if isinstance(value, date):
        return "birth_date" if column == "birth_date" else None
    text = fold_text(str(value)).strip()
    if not text or scanner.is_own(text) or find_column_kind(text):
        return None
    n_digits = sum(map(str.isdigit, text))
    if column == "birth_date":
        return "birth_date" if n_digits >= 4 and (_DATE.search(text) or _SHORT_DATE.search(text)) else None
    if column == "telephone":
        return "telephone" if 7 <= n_digits <= 15 and not re.search(r"[A-Za-z]{4}", text) else None
    if column == "nhs_number":
        return "nhs_number" if 9 <= n_digits <= 12 and not re.search(r"[A-Za-z]{2}", text) else None
    words = re.findall(r"[A-Za-z'-]{2,}", text)
    if n_digits or not 1 <= len(words) <= 5 or len(text) > 60 or text.lower() in _NO_ANSWER or "_" in text:
        return None
    if any(word.lower() in _NO_ANSWER for word in words) and len(words) == 1:
        return None
    if column == "name":
        return "name"
    # A bare "Name" may be that of anything.
    folded = [word.lower() for word in words]
    if any(word in scanner.names.never for word in folded) or not text[0].isupper():
        return None
    is_known = any(word in scanner.names.given for word in folded)
    is_known |= len(folded) > 1 and scanner.names.is_given(folded[0]) and scanner.names.is_family(folded[-1])
    return "name" if is_known else None


_SHORT_DATE = re.compile(r"(?<!\d)\d{1,4}[./ -](?:\d{1,2}|[A-Za-z]{3,9})[./ -]\d{2,4}(?!\d)")


def count_kinds(places: Iterable[Place]) -> dict[IdentifierKind, int]:
    """How many places of each kind, in the order of IDENTIFIER_KINDS; kinds without any are left out."""
    found = list(places)
    counts = {kind: sum(place.kind == kind for place in found) for kind in IDENTIFIER_KINDS}
    return {kind: n for kind, n in counts.items() if n}


def describe_kinds(kinds: Collection[str]) -> str:
    """ "a name, a postcode": kinds in words."""
    return ", ".join(words for kind, words in KIND_WORDS.items() if kind in kinds)

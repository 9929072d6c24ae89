"""The forms in which Project Gutenberg's files say where a book starts and ends, and who made them.

One entry a form, with an example beside it; no title and no author. A form is looked for at the
start of a line or paragraph whose runs of blanks and line ends have become one blank, whatever
stars, brackets or quotes are drawn around it, and in any case.
"""

import re
from collections.abc import Callable

MADE = (
    r"(?:produced|prepared|transcribed|scanned|typed|keyed|digiti[sz]ed|converted|proof(?:ed|read)"
    r"|created|provided|submitted|contributed|updated)"
)
GUTENBERG = r"(?:copyrighted )?project gutenberg"
ETEXT = r"e-?(?:text|book)"


def _starts_with(*forms: str) -> Callable[[str], bool]:
    pattern = re.compile(rf"[\W_]*(?:{'|'.join(forms)})", re.IGNORECASE)
    return lambda line: pattern.match(line) is not None


def _holds(*forms: str) -> Callable[[str], bool]:
    pattern = re.compile("|".join(forms), re.IGNORECASE)
    return lambda paragraph: pattern.search(paragraph) is not None


# Lines after which the book starts.
is_start = _starts_with(
    rf"(?:start|beginning) of (?:the |this )?{GUTENBERG}",  # *** START OF THE PROJECT GUTENBERG ...
)
is_small_print_end = _starts_with(
    r"end\W*(?:of )?the\W+small\W+print",  # *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver...
    r"small print!.*\*end\*",  # *SMALL PRINT! Ver.03.17.93*END*
    r"small print\W+v\.",  # ["Small Print" V.12.08.93]
)
is_rights_end = _starts_with(r"tells you about restrictions in how the file may be used")

# Lines after which the book has ended.
is_bold_end = _starts_with(
    rf"(?<=\*) ?end of (?:the |this )?{GUTENBERG}",  # *** END OF THE PROJECT GUTENBERG EBOOK ...
)
is_plain_end = _starts_with(
    r"(?-i:(?:The |THE )?E(?:nd|ND)) of (?:the |this )?(?:is )?"
    rf"(?:{GUTENBERG}|{ETEXT}\b)",  # End of Project Gutenberg's ...   The End of this Etext
    rf"(?-i:Ende) diese[rs]? (?:pro[jy]e[ck]t gutenberg|{ETEXT})",  # Ende dieses Projekt Gutenberg
    r"(?-i:Fine?|Einde|Fim) (?:d\w+ |van |het )*pro\w+ gutenberg",  # Fin de Project Gutenberg
    r"more information about this book is at the top of this file",
    rf"this is a {GUTENBERG} {ETEXT}, details above",
)
is_footer = _starts_with(
    r"this file should be named",  # ***** This file should be named 1065.txt or 1065.zip *****
    r"updated editions will replace",
    r"creating the works from (?:public domain )?print editions",
    r"start: full license",
    r"the full project gutenberg license",
    r"section 1\. +general terms of use and redistributing",
    r"start\W*(?:of )?the\W+small\W+print",  # ***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ...
    r"project gutenberg (?:of )?australia\W*$",
)

# Paragraphs of a header.
is_title = _starts_with(
    rf"(?:(?:this|the|is|a|an|of|copyrighted) )*project gutenberg(?:,? (?:of australia )?{ETEXT}\b"
    # The Project Gutenberg EBook of ..., by ...   *** A Project Gutenberg of Australia eBook ***
    r"|['\u2019]s (?!.*[.!?:;]$)"  # Project Gutenberg's ..., by ...; a sentence is no title
    r"|(?: of)? australia\b)",
)
is_licence = _starts_with(
    rf"this {ETEXT} is (?:for the use of anyone|made available at no cost)",
    r"copyright laws are changing all over the world",
    r"please take a look at the important information in this header",
    r"this (?:header )?should be the first thing seen",
    r"please (?:read the \W?legal small print|do not remove this)",
    r"welcome to the world of free plain vanilla electronic texts",
    r"e-?(?:books|texts) readable by both humans and by computers",
    r"these e-?(?:books|texts) (?:were )?prepared by",
    r"start\W*(?:of )?the\W+small\W+print",
)
is_metadata = _starts_with(
    r"(?:title|author|editor|translator|illustrator|contributor|commentator|(?:release|posting)"
    r" date|edition|(?:most recently|last) updated|date (?:first posted|(?:most recently|last)"
    r" updated)|language|character set encoding|original publication|e-?(?:book|text) no\."
    r"|credits|other information and formats) ?:",  # Release date: June 1, 2021 [eBook #1]
    r"(?:\w+,? )?\d{4} \[e-?(?:book|text) #\d",  # March, 1994 [Etext #11]
)
has_number = _holds(r"\[e-?(?:book|text) #\d+\]", r"\be-?book no\.:")
speaks_of_gutenberg = _holds(r"project gutenberg", r"gutenberg\.(?:org|net)", r"\be-?(?:book|text)")

# Paragraphs that say who made the file, and from what.
is_credit = _starts_with(
    rf"{MADE}(?:(?: ?, ?| and | ?& ?){MADE})* (?:by|from|for)\b",  # Scanned and proofed by ...
    rf"(?:this |the )?(?:project gutenberg )?(?:{ETEXT}|html|(?:electronic|digital) \w+|file|text"
    rf"|book|edition) (?:(?:version|edition) )?(?:(?:was|is) )?{MADE}(?:\b.{{0,40}}?) (?:by|from)"
    r"\b",  # This etext was produced from the 1908 edition by ...   E-text prepared by ...
    rf"(?:{ETEXT}|html(?: (?:version|edition|file)s?)?) by\b",  # HTML version by ...
    r"credits ?:",  # Credits: ...
    r"this file was first posted|(?:most recently|last|date last) updated",  # [Last updated: ...]
    rf"portions of this (?:{ETEXT}|header)",  # [Portions of this header are copyright ...
)
has_web_sign = _holds(  # thanks and sources; no title page of an old book has any of these
    r"https?://|\bwww[.:]|\w@[\w.-]{1,80}\.\w|\bpgdp\b",
    r"distributed proofread|internet archive|gallica\.bnf",
)
is_html_note = _starts_with(  # Note: Project Gutenberg also has an HTML version of this file
    r"(?:editorial )?note: .*(?:project gutenberg|html version|images of the original)",
)

# Names of a transcriber's notes.
NOTE_NAME = re.compile(
    r"""[\W_]*(?:
    transcri(?:b|pt)(?:er|or|ion)['\u2019]?s?['\u2019]?\ (?:end\ ?|foot)?
        (?:notes?|comments?|remarks?|corrections?|errata|changes)   # Transcriber's Note
    | notes?\ (?:by|from|of|on|to)\ (?:the\ )?transcri(?:b|pt)\w+   # Note by the Transcriber
    | (?:errata|corrections?|errors?|changes)\ (?:\w+\ ){0,3}by\ (?:the\ )?transcriber
    | (?:e-?text|redactor['\u2019]s)\ notes?                        # Redactor's Note
    | information\ about\ this\ e-?text\ edition
    | typographical\ errors\ corrected
    | (?:not[aes]{1,2}|remarques?)\ (?:sur\ )?(?:d?[eaiou]{0,2}l?\ )?(?:d['\u2019])?
        (?:l[ae]\ )?tra(?:n)?scri\w+         # Note du transcripteur, Nota del trascrittore
    | (?:anmerkung|hinweis|bemerkung|notiz)(?:en|e)?\ (?:zu[rm]?|de[rs])\ (?:transkri|bearbeit)\w+
    | (?:opmerking(?:en)?|noo?ten?)\ van\ de\ (?:bewerker|transcri)\w*
    )(?P<rest>.*)""",
    re.IGNORECASE | re.VERBOSE,
)
is_address = _starts_with(r"au lecteur\W*$", r"to the reader\W*$", r"an den leser\W*$")
speaks_of_file = _holds(  # what tells such an address from the author's own
    r"transcri|transkri|livre \wlectronique|italiques? dans l.original|erreurs? typograph",
    r"\be-?(?:text|book)",
)
is_file_note = re.compile(  # [This text is intended for users whose text readers cannot use ...
    rf"\[this (?:{ETEXT}|text|file|version) (?:is|was|has|comes|uses|includes)\b", re.IGNORECASE
).match
speaks_of_editing = _holds(
    r"\boriginal\b|\bitalics?\b|\bspelling|\bhyphen|\btypo|\bcorrected\b|\bpunctuation",
    r"\bunderscore|\bascii\b|\butf-8|\bunicode|\be-?(?:text|book)|transcri",
)
is_divider = re.compile(r"\s*(?:[*\-=_~+]\s*){3,}").fullmatch

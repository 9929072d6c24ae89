"""Invented books in the formats of Project Gutenberg, as parts to be combined."""

GAP = "\n\n\n\n"


def file_of(header: str, credit: str, before: str, body: str, after: str, end: str) -> str:
    """Join the parts of a file with blank lines."""
    parts = [header, credit, before, body, after, end]
    return GAP.join(part.strip("\n") for part in parts if part) + "\n"


USE = """\
This eBook is for the use of anyone anywhere at no cost and with
almost no restrictions whatsoever.  You may copy it, give it away or
re-use it under the terms of the Project Gutenberg License included
with this eBook or online at www.gutenberg.org"""

SMALL_PRINT = """\
***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***
Why is this "Small Print!" statement here?  You know: lawyers.

By using any part of this PROJECT GUTENBERG-tm etext, you agree.

LIMITED WARRANTY; DISCLAIMER OF DAMAGES
The copyright laws of your country may differ.

INDEMNITY
You will indemnify and hold us harmless."""

METADATA = """\
Title: Orsin at Sea
       A Tale in Two Parts

Author: A. Nobody

Release Date: May, 2004 [EBook #99999]
[Last updated: June 1, 2011]

Language: English

Character set encoding: ASCII"""

TITLE = "The Project Gutenberg EBook of Orsin at Sea, by A. Nobody"


def _header(marker: str, title: str = TITLE) -> str:
    return f"{title}\n\n{USE}\n\n\n{METADATA}\n\n\n{marker}\n"


HEADERS = {
    "none": "",
    "marker only": "*** START OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA ***\n",
    "modern": """\
The Project Gutenberg eBook of Orsin at Sea

This ebook is for the use of anyone anywhere in the United States and
most other parts of the world at no cost.

Title: Orsin at Sea

Author: A. Nobody

Release date: March 1, 2023 [eBook #99999]
                Most recently updated: April 2, 2024

Language: English

Original publication: Nowhere: Nobody & Sons, 1901

Credits: Jane Doe and the Online Distributed Proofreading Team at https://www.pgdp.net

*** START OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA ***
""",
    "this": _header("*** START OF THIS PROJECT GUTENBERG EBOOK ORSIN AT SEA ***"),
    "no blank": _header("***START OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA***"),
    "comma": _header("*** START OF THE PROJECT GUTENBERG EBOOK, ORSIN AT SEA ***"),
    "etext": _header("*** START OF THE PROJECT GUTENBERG ETEXT ORSIN AT SEA ***"),
    "wrapped title": _header("*** START OF THE PROJECT GUTENBERG EBOOK ORSIN\nAT SEA ***"),
    "wrapped name": _header("*** START OF THE PROJECT\nGUTENBERG EBOOK ORSIN AT SEA ***"),
    "curly": _header(
        "*** START OF THIS PROJECT GUTENBERG EBOOK ORSIN\u2019S \u201cSEA\u201d ***",
        "Project Gutenberg\u2019s Orsin\u2019s Sea, by A. Nobody",
    ),
    "copyrighted": _header("*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK ORSIN ***"),
    "credited above": _header(
        "Produced by: Jane Doe\n\n*** START OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA ***"
    ),
    "1993": f"""\
***This is the Project Gutenberg Etext of Orsin at Sea***
*This 10th edition should be labeled orsin10.txt or orsin10.zip.

Please take a look at the important information in this header.
We encourage you to keep this file on your own disk.

**Welcome To The World of Free Plain Vanilla Electronic Texts**

March, 1994  [Etext #11]

******This file should be named orsin10.txt or orsin10.zip******

ftp a.server.somewhere
login:  anonymous

{SMALL_PRINT}
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
""",
    "2001": f"""\
The Project Gutenberg Etext of Orsin at Sea, by A. Nobody

Copyright laws are changing all over the world, be sure to check
the laws for your country before redistributing these files!!!

Please do not remove this.

This etext was produced by Jane Doe

{SMALL_PRINT}

*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.10/04/01*END*
""",
    "rights": """\
Project Gutenberg's Orsin at Sea, by A. Nobody
#2 in our series by A. Nobody

Copyright laws are changing all over the world.

The "legal small print" and other information about this book
may now be found at the end of this file.  Please read this
important information, as it gives you specific rights and
tells you about restrictions in how the file may be used.
""",
    "australia": """\
Project Gutenberg Australia

Title: Orsin at Sea
Author: A. Nobody
* A Project Gutenberg of Australia eBook *
eBook No.: 0300001.txt
Language: English
Date first posted: January 2003

This eBook was produced by: Jane Doe

Project Gutenberg of Australia eBooks are created from printed editions
which are in the public domain in Australia.

This eBook is made available at no cost and with almost no restrictions
whatsoever.

To contact Project Gutenberg of Australia go to http://gutenberg.net.au
""",
    "no marker": f"{TITLE}\n\n{USE}\n\n{METADATA}\n",
    "nth": f"""\
This is the 99999th Etext file presented by Project Gutenberg, and
is presented in cooperation with the Nobody Library of Nowhere.
It is not in the public domain.

Orsin

*This Etext has certain copyright implications you should read!*

{SMALL_PRINT}
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
""",
    "second": f"""\
**The SECOND Project Gutenberg Etext of Orsin at Sea**
This 10th edition should be labeled orsin10.txt or orsin10.zip.

{SMALL_PRINT}
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN
ETEXTS*Ver.04.29.93*END*
""",
    "license first": f"""\
Please take a look at the important information in this header.
We encourage you to keep this file on your own disk.

**Welcome To The World of Free Plain Vanilla Electronic Texts**

Orsin at Sea, by A. Nobody

May, 1994  [Etext #99999]

The Project Gutenberg Etext of Orsin at Sea, by A. Nobody

{SMALL_PRINT}
*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*
""",
}

CREDITS = {
    "none": "",
    "produced": "Produced by Jane Doe.  HTML version by John Roe.",
    "proofreaders": "Produced by Jane Doe and the Online\nDistributed Proofreading Team at "
    "http://www.pgdp.net",
    "images": "Produced by Jane Doe and the PG Distributed Proofreaders\n\n"
    "(This file was produced from images generously made\navailable by The Internet Archive)",
    "credits": "Credits: Jane Doe, John Roe",
    "transcribed": "Transcribed from the 1901 Nobody & Sons edition by Jane Doe,\n"
    "email jane@example.org",
    "html note": "E-text prepared by Jane Doe\n\n\n\n"
    "Note: Project Gutenberg also has an HTML version of this\n      file.\n"
    "      See 99999-h.htm or 99999-h.zip:\n      (http://www.gutenberg.net/9/9/99999-h.zip)",
    "etext": "This etext was prepared by Jane Doe, Nowhere, <jane@example.org>",
    "etext from": "This etext was produced from the 1901 Nobody and Sons\nedition by Jane Doe",
    "ebook": "This eBook was produced by Jane Doe",
    "scanned": "Scanned and proofed by Jane Doe",
    "html": "HTML version by Jane Doe.",
    "bilingual": "Produced by Jane Doe\n\nWe thank the library at www.example.fr, authorizing\n"
    "the preparation of the etext through OCR.\n\n"
    "Nous remercions la biblioth\u00e8que qui a mis les images dans www.example.fr.",
    "below stars": "* * * * *\n\nProduced by Jane Doe",
    "between stars": "*********************\n\nThis electronic edition was edited, proofed, and "
    "prepared by\nJane Doe (jane@example.org), May 1996.\n\n*********************",
    "special thanks": "Produced by Jane Doe\n\nSpecial thanks are due to John Roe of Nowhere.",
    "only thanks": "Special thanks are due to John Roe,\nwho lent us the book.",
    "thanks": "With thanks to John Roe for his careful proofreading.",
    "software": "Scanned by Jane Doe with Nobody OCR software\ndonated by Nobody & Sons",
    "prepared for": "This text was prepared for Project Gutenberg by Jane Doe.",
    "prepared with": "This etext was prepared with the use of Nobody's Software 2.0",
    "french credit": "Produit par Jane Doe",
    "german credit": "Erstellt von Jane Doe und John Roe",
    "finnish credit": "Tuottanut Jane Doe",
    "above a title": "Produced by Jane Doe\n\nProject Gutenberg's Orsin at Sea, by A. Nobody",
}

BODIES = {
    "prose": "ORSIN AT SEA\n\nby A. Nobody\n\n\n\nOrsin took a boat\nand was gone.\n\n  THE END\n",
    "one line": "Orsin.\n",
    "talks": "The play, produced by Orsin,\nended.\n\nProduced by fire, the smoke rose; "
    "and this is the end of the project.\n",
    "illustrated": "[Illustration:\n\nThe Boat\n]\n\nOrsin at Sea\n\n\n[Illustration]\n",
    "preface": "PREPARER'S NOTE\n\nThis text is based on an old one.\n\n* * * * *\n\nOrsin sat.\n",
    "long": "\n\n".join(f"Orsin counted the waves: {i}\nand sang." for i in range(200)) + "\n",
}

NOTES = {
    "none": "",
    "bracket": "[Transcriber's Note:\n\nSpelling [sic] was kept.\n\n\n\nSo were hyphens.]",
    "bracket line": "[Transcriber\u2019s Note: Spelling was kept.]",
    "heading": "TRANSCRIBER'S NOTES:\n\nSpelling was kept.\n\nHyphens were not.",
    "bracket heading": "[Transcriber's Notes]\n\nSpelling was kept.\n\nHyphens were not.",
    "paragraph": "Transcriber's Note: Spelling was kept\nand hyphens were not.",
    "paragraphs": "Transcribers Note: Obvious errors were corrected.\n\n"
    "Words in _italics_ were so in the original.",
    "unnamed": "[This text is intended for readers without\nUnicode. Accents are missing.]",
    "box": "+----------------------+\n| Transcriber's Note:  |\n|                      |\n"
    "| Spelling was kept.   |\n+----------------------+",
    "errata": "Errata Noted by Transcriber:\n\n  Air X. ... contreband.\n\n  Page 2: teh",
    "listed errata": "The listed errata have been corrected, as have\nobvious typos.",
    "inconsistencies": "Inconsistent spelling and hyphenation has been retained.",
    "changes": "Note:  I have made the following changes to the text:\n\n"
    "PAGE LINE ORIGINAL CHANGED TO\n   2    36  teh         the",
    "proofreader": "Proofreader's note: the map is missing.",
    "french": "Note du transcripteur:\n\n  L'orthographe a \u00e9t\u00e9 conserv\u00e9e.",
    "french reader": "  Au lecteur.\n\n    Ce livre \u00e9lectronique reproduit le texte original.",
    "german": "Anmerkungen zur Transkription\n\nDie Rechtschreibung blieb.",
    "dutch": "Opmerkingen van de bewerker\n\nDe spelling bleef.",
    "spanish": "Nota del transcriptor:\n\nSe conserva la ortograf\u00eda.",
    "italian": "Nota del Trascrittore\n\nLa grafia resta.",
    "portuguese": "Notas de transcri\u00e7\u00e3o:\n\nA grafia fica.",
}

LICENCE = """\
Updated editions will replace the previous one--the old editions
will be renamed.

*** START: FULL LICENSE ***

THE FULL PROJECT GUTENBERG LICENSE
PLEASE READ THIS BEFORE YOU DISTRIBUTE OR USE THIS WORK
"""
NAMED = f"***** This file should be named 99999.txt or 99999.zip *****\n\n{LICENCE}"
STARS = "*** END OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA ***"

ENDS = {
    "none": "",
    "modern": f"{STARS}\n\n{LICENCE}",
    "this": f"End of Project Gutenberg's Orsin at Sea, by A. Nobody\n\n{STARS}\n\n{NAMED}",
    "no blank": f"***END OF THE PROJECT GUTENBERG EBOOK ORSIN AT SEA***\n\n{NAMED}",
    "wrapped title": f"*** END OF THE PROJECT GUTENBERG EBOOK ORSIN\nAT SEA ***\n\n{LICENCE}",
    "wrapped name": f"*** END OF THE PROJECT\nGUTENBERG EBOOK ORSIN ***\n\n{LICENCE}",
    "wrapped line": f"End of the Project Gutenberg Ebook of Orsin,\nby A. Nobody\n\n{STARS}",
    "without by": f"End of Project Gutenberg's Orsin at Sea, A. Nobody\n\n{STARS}\n\n{NAMED}",
    "last line": "End of The Project Gutenberg Etext of Orsin at Sea",
    "the end of": f"The End of the Project Gutenberg Etext of Orsin by\nA. Nobody\n\n{NAMED}",
    "this etext": "End of this Etext of Orsin at Sea",
    "capitals": "END OF PROJECT GUTENBERG ETEXT OF ORSIN AT SEA",
    "lower case": 'The end of Project Gutenberg etext of "Orsin at\nSea"',
    "this is the end": "This is the end of the Project Gutenberg Edition of Orsin at Sea.",
    "you have reached": "You have reached the end of Project Gutenberg's edition of Orsin",
    "end project": "End Project Gutenberg Etext of Orsin at Sea",
    "stars on both lines": "**End of The Project Gutenberg Etext of Orsin at Sea by\nA. Nobody**",
    "credited": f"{STARS}\n\n***** This file should be named 99999.txt or 99999.zip *****\n\n"
    f"Produced by Jane Doe\n\n{LICENCE}",
    "title": "*The Project Gutenberg Etext of Orsin at Sea, by A. Nobody*",
    "details": "**This is a COPYRIGHTED Project Gutenberg Etext, Details Above**",
    "german": f"Ende dieses Projekt Gutenberg Etextes Orsin\n\n{NAMED}",
    "french": f"Fin de Project Gutenberg's Orsin, par A. Nobody\n\n{STARS}\n\n{NAMED}",
    "dutch": f"Einde van het Project Gutenberg EBook van Orsin\n\n{STARS}\n\n{NAMED}",
    "small print": "More information about this book is at the top of this file.\n\n"
    f"{SMALL_PRINT}\n\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*",
    "only small print": f"{SMALL_PRINT}\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*END*",
    "named": f"This file should be named orsin12.txt\n\n{LICENCE}",
    "licence": LICENCE,
    "clauses": f"{STARS}\n\nSTART: FULL LICENSE\n\nPLEASE READ THIS BEFORE YOU DISTRIBUTE OR USE "
    "THIS WORK\n\nSection 2. Information about the Mission\n\n1.F.5. Some states disagree.",
    "only a license": f"{STARS}\n\nThis license must be kept.\n\nDonations are welcome.\n",
    "australia": "Project Gutenberg Australia",
}

# Not enough to recognize a book without a header.
FAINT_ENDS = {"none", "this etext", "only small print", "australia", "title"}

NO_BOOKS = {
    "essay": "Project Gutenberg is a library. Its books are produced by volunteers.\n\n"
    "Produced by many hands, they end in the words THE END.\n\nTHE END\n",
    "essay with markers": "Project Gutenberg's founder typed the first text in 1971.\n\n"
    "A book starts after a line like\n\n*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\n"
    "and stops before\n\n*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nOften.\n",
    "code": 'START = "*** START OF THE PROJECT GUTENBERG EBOOK"\n\n'
    'END = "*** END OF THE PROJECT GUTENBERG EBOOK"\n\ndef strip(text):\n    return text\n',
    "quoted end": "They wrote\n\nEnd of Project Gutenberg's Emma\n\nbelow each book. We do not.\n",
    "credits": "Produced by Jane Doe\n\nThe press of Gutenberg was made of wood.\n",
    "press": "Johannes Gutenberg printed.\n\n[Transcriber's Note: so it is said.]\n\nHe did.\n",
    "title": "Title: Orsin\nAuthor: Nobody\n\nHe read Project Gutenberg at night.\n",
    "empty": "",
    "blank": "\n \n",
}

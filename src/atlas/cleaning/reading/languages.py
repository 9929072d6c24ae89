"""Measure how much a decoded text looks like one of 48 languages.

Any bytes are valid in dozens of 8-bit encodings, so a guess has to know languages. The tables hold
their letters, most frequent first. The score of a text is the logarithm of its probability: of its
letters by their rank in the language that fits best, of its signs by how usual they are, and of its
pairs of characters by whether one may follow the other. A capital inside a word, two alphabets in
one word and a sign between letters are rare. ASCII characters are equal in all encodings, so they
count only as neighbors and as evidence of the language.
"""

import math
import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import pairwise

LETTERS = {  # of each language, most frequent first
    "en": "etaoinsrhldcumfgypwbvkjxqzéïèöçñüêàáæœ",
    "fr": "esatniruoldcpmévqfgbhàjxèyêçzkôùœâîwûïëæüñ",
    "es": "eaosnrildtcumpbygqvhfóíjázéñxúkwü",
    "pt": "eaosridntmuclpvgqfbãhçéázjíêxóõàúôâykwü",
    "it": "ieaontlrsdcupmgvhzfbqàèùòéìkywxjîú",
    "ca": "easilrtnodcumpvbgqfhéóxàjèíyòúçzïüwk",
    "ro": "eiarntulcosdpămfșşvțţîbgzâhjxykwé",
    "de": "enirstadhulcgmobfwkzvpüäjöyßxqéà",
    "nl": "enaitrodlsghvkmjwubpzcfyxëéqïèöüóê",
    "sv": "aetrnilsdogmkävhfåupöcbjyxwzéüà",
    "da": "erntdialsgokmfvhubpåæjøycwxézqüöäòó",
    "nb": "ertniaslodgkmvfhåpubjøyæcwxéòôêzóq",
    "fi": "aitnesolkäumvjhrypdögbcfwxzåqšž",
    "et": "aeistlunkdmorvgõjhpbäüöfšžcyzwx",
    "fo": "airntlsegumvðækodfhíøyjbápúóý",
    "cy": "adyneilrhwogutfbcsmpâôŵêŷîïáëìj",
    "ga": "aihnertcsodgluámíbfúéóp",
    "sq": "etëirnashjdmokuplvgbfqzycçxw",
    "eo": "aoeinrjltksudpcmvgbĉŭfhĝzŝĵĥ",
    "mt": "ialetundjħrmogksbzfpwhqxżġvàċù",
    "pl": "aieonzwrstcydkpmjulbłgężhąóśćfńźvxqé",
    "cs": "oeantsvildkmrpuíájchzbyěžéřčýšůfgúňxťďwóqöü",
    "sk": "oaenistrvkldmpuáhcjbzyýžčíéšúťľfgôďňóäxwĺŕqöü",
    "sl": "eaoinrsvjtldkpmzubčghšcžfywxćđ",
    "hr": "aoienjsrutdvkmlpbzgščchžćđfywx",
    "hu": "eatnslkimzogréáydvbhjöpucőófüíúűwxqäà",
    "lt": "iastoernkumlpvdjgbėyųšžąįūcęčzfhxw",
    "lv": "aisteurnkāmvolpdībjzēgcšūņļfžķģhčwyx",
    "tr": "aeinrlkıdmtsyuboühşvzgçcğpöfjâîûwxq",
    "az": "aeəinrlmdıstyuübğhkşvozxçqcöfpgj",
    "vi": "nhctigauđmolvyrbpksôêâươădqx\u0301\u0300\u0323\u0309\u0303éèáàóòúùíìýãõ",
    "is": "arniestlgumðfkovháídþjybóöæépúýcwxz",
    "ru": "оеаинтсврлкдмпуяыбьгзчйжхюшцщэфёъ",
    "uk": "оаніивтресдкулпмязбьгчйжхцюїшєщфґ",
    "be": "анірывеосдялкпцумтбзўгчьхжюйэшёф",
    "bg": "аоиентсврдклпмзябъчгужщцйхшфюь",
    "sr": "аоиенврустдпкмлјбзчњгшцљжхђћф",
    "mk": "аоеинтсвдрклмпујзгбшчцжќњфѓхџљѕѐѝ",
    "kk": "аеынтрілқдмсбкуоғжәұпзңйгишүөяцхюъэвьфчһщё",
    "tg": "аиодрнмтуҳбскқвлязшеӣхҷфгъёӯпэчйғюжь",
    "el": "ατοιεσνκρπημυλίάόέδγωήθχύςώφβξζψϊΐϋΰ",
    "he": "יוהלאתברשמעםנכדחפקסזןגצטךףץ\u05b7\u05b8\u05bc\u05c1",
    "ar": "اليمنورتعةبدفهأقسكحجىشإصخذطضزثغءئظآؤ\u064b\u064f\u0651ـ\u064e\u0650\u0652",
    "fa": "ایردنهومتبکسشلزقعخفحگجآپصچطضيذظغئثكژأءؤىۀ",
    "ur": "ایکروہےمنتسلدبںجپعقھحگئفشخزصچآٹطضڈظڑغذثؤ\u0650ءۃ\u064b",
    "th": "ารนกอ่มิงทะัด้สลเคยีวตแหจปบใุขชธืไพ็ำศโูถภึษ์ญผๆฏฐณซฎฒฉฤฝฟฬฆฯ",
}
IDEOGRAPHS = {  # the most frequent ones
    "zh-Hans": (
        "的是一在不人有了我国这为中个大会们他来和年上以要到时对么能你就发可地生家出也说于学后成与"
        "过行用日多自现都没作下得开经还法动好方而公子事分之民主里政看吗本月所天新业同全定部最其进"
        "如前机美那当工关实小被但因长样理等什道去些面很心间区内电然力起体只着从并者高加想文问种员"
        "重及点将意合产三外由市无女已制网第情场名应西代正表真此位题相明资计建利系化期特性度果次给"
        "让两通教任比该东活手世提或使她物数立认怎知结入更总务话斯统目社展战做设安别信影己受解军司"
        "回把保平常见向海变报治台爱品北何接界论组件权选府议少它共运车至记又原金身式老路决科联视口"
        "处各持站量交万直反南打据基始再快水门十感程导传院才放今术强元完号图规改管划亚领际单头二尔"
        "需布达队片求非历每书指马广党几太先带游城办球色觉义级师专类约集告技团取儿参克史服格候调包"
        "请德必拉乐许造确气难吧证收称语山死线示条像流命根则近济京听英士价推标举争友干支委四续况准"
        "形男望官"
    ),
    "zh-Hant": (
        "的是一在不人有了我國這爲中個大會們他來和年上以要到時對麼能你就發可地生家出也說於學後成與"
        "過行用日多自現都沒作下得開經還法動好方而公子事分之民主裏政看嗎本月所天新業同全定部最其進"
        "如前機美那當工關實小被但因長樣理等什道去些面很心間區內電然力起體只着從並者高加想文問種員"
        "重及點將意合產三外由市無女已制網第情場名應西代正表真此位題相明資計建利系化期特性度果次給"
        "讓兩通教任比該東活手世提或使她物數立認怎知結入更總務話斯統目社展戰做設安別信影己受解軍司"
        "回把保平常見向海變報治臺愛品北何接界論組件權選府議少它共運車至記又原金身式老路決科聯視口"
        "處各持站量交萬直反南打據基始再快水門十感程導傳院才放今術強元完號圖規改管劃亞領際單頭二爾"
        "需布達隊片求非歷每書指馬廣黨幾太先帶遊城辦球色覺義級師專類約集告技團取兒參克史服格候調包"
        "請德必拉樂許造確氣難吧證收稱語山死線示條像流命根則近濟京聽英士價推標舉爭友幹支委四續況準"
        "形男望官"
    ),
    "ja": (
        "人日大本出見一分時事中言思年行間気生自方上会子今前者的入月手国作合来何女全最無場動用目後"
        "発学話定当理高感性部地回新画使下実私物体知通力家同名対度業良多持開代金意内長関変所数戦要"
        "外社以取化明現食法結心世不好成俺楽味考能小立機書初面期少様田付違先員車山市解問連報近安番"
        "記加公売仕神教界特主表信東品電聞選終題悪必正二強男続真死道料決語他可野確文相美情水向切愛"
        "身受円集別始達彼元在活買着重三引位過有次海保経送点原利調制万白式第屋限設民直起待勝組得果"
        "店込運色放県指約流予置認読状参京政川応音誰口校島系残件産配天"
    ),
    "ko": (
        "이다는에하고가을지의로서은아한어도기사니있를나해리시그요인들자일게대라으스수만보제면정주"
        "전부여거과장했상안마구었데오야내원우신적것성국되세위와무할동생소트드모미진문중말화공까러"
        "비습간없분조저입개터유계치월같경회선년때연실바음관용더명학네영교당작좋방려않합래발건된단"
        "재며각운금람행남물알차등통번르던두타후프겠체크랑식히너산역버임호포예결반잘님함심속업본레"
        "파직디감처런카못노았군받배매출양표피살든현많른법달난집민설였최형또불력키천걸강날울테싶청"
        "루종언약애코점워토추준께질외근태올참격렇름친초늘권온린따록목"
    ),
}
HIRAGANA = (
    "のいてなにたしでるとはがかっをすもらうんれまだこりくあよさけきそやおどえわちめつねじせみ"
    "ゃろばずょごほべげへぎびむぶぞぐ"
)
KATAKANA = (
    "ーンスイトルッラリクアタドレロシカマジフプコメバムテチキグサブャオニデパィナウビエュダミ"
    "セツズョハモネベガポボェケワノソ"
)
# Share of these letters in a text; the rest is spread over letters that the tables don't list.
SHARES = {"zh-Hans": 0.7, "zh-Hant": 0.7, "ja": 0.2, "ko": 0.88, "hiragana": 0.45, "katakana": 0.2}
# National standards, whose first part has the usual characters: the first byte that is not in it.
STANDARDS = {
    "zh-Hans": ("gb2312", 0xD8),
    "zh-Hant": ("big5", 0xC9),
    "ja": ("euc_jp", 0xD0),
    "ko": ("euc_kr", 0xC9),
}

# Logarithms of probabilities. Of letters:
FOREIGN = -11.0  # another language's
UNLISTED_USUAL, UNLISTED_KANA, UNLISTED_RARE = -8.5, -7.5, -12.0
UNLISTED_ASCII = -8.0
# Of other characters:
BAD = -16.0  # control characters, unassigned and private ones, invalid bytes
UNUSUAL_SIGN = -9.0
BOX = -8.0
SIGNS = {
    **dict.fromkeys("、。，「」", -3.0),
    **dict.fromkeys("“”’", -4.5),
    **dict.fromkeys("–—«»„\u00a0،！？：；（）・『』《》", -5.0),
    **dict.fromkeys("°©€£¿¡", -5.5),
    **dict.fromkeys("‘…", -6.0),
    **dict.fromkeys("®§º·", -6.5),
    **dict.fromkeys("ª²³½¼¾±×¢№™•†‚‹›´\u00ad\u200e\u200f", -7.5),
}
# Of a character after another one:
START_OF_NAME = -1.5  # a capital at the start of a word
ALL_CAPITALS, SAME_CAPITAL = -1.0, -4.0
CAPITAL_INSIDE = -6.0
TWO_SCRIPTS, SCRIPT_BESIDE_CJK = -5.0, -1.0
LONE_MARK = -6.0
DIGIT_BESIDE_LETTER = -2.0
WRONG_SIDE = -3.0  # a sign where a letter is expected, or none at all
DOUBTFUL_SIDE = -1.0
TWO_SPACES = -2.0
BOX_LINE = 6.0  # repeated, which makes up for BOX
# Of words and texts:
ODD_WORD = -3.0
NON_LATIN = -4.0
ASCII_LETTER_IN_WORD = {"LATIN": 0.0, "CJK": -0.5}  # by the script of the text
ASCII_LETTER_IN_OTHER_WORD = -2.0

MAX_ALPHABET = 100  # letters; more are syllables or ideographs, whose frequencies follow Zipf's law
MAX_CONTEXT = 60  # letters of context that count
OPENING, CLOSING = "«„“‘¿¡‚‹", "»”’“…›™"
BETWEEN = "\u00ad、。，・；：？！،"  # signs that stand next to letters without a space
DASHES = "–—"
ONE_LETTER_WORDS = frozenset("abcdefghijklmnopqrstuvwxyzàáâåèéêìíòóôöúő")
LEADING_APOSTROPHE = re.compile(r"(?<!\w)’(?=\w)")
ODD_APOSTROPHE = re.compile(r"\w’[^\Wdmst](?!\w)")  # unlike don’t and it’s
JAPANESE = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")
CJK = {"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "CJK", "HALFWIDTH"}


def log_likelihood(text: str, context: str = "", non_latin: float = NON_LATIN) -> float:
    """Return the logarithm of the probability of the non-ASCII characters of a text.

    ``context`` holds ASCII letters around it, which can tell the language. ``non_latin`` is the
    logarithm of the probability that the text is in another script than Latin.
    """
    total = sum(count * _transition(*pair) for pair, count in Counter(pairwise(text)).items())
    letters: dict[str, Counter[str]] = {"LATIN": Counter()}
    marks = Counter[str]()
    for character, count in Counter(text).items():
        kind = _kind(character)
        if kind == "mark":
            marks[character] += count
        elif kind in LETTERS_OF_WORDS:
            lower = character.lower()[0]  # İ becomes two characters
            letters.setdefault(_script(lower), Counter())[lower] += count
        elif character >= "\x80":
            total += count * _sign(character)
    ascii_letters = sum(count for each, count in letters["LATIN"].items() if each < "\x80")
    sizes = {script: counts.total() for script, counts in letters.items()}
    sizes["LATIN"] -= ascii_letters
    main = max(sizes, key=sizes.__getitem__)
    total += FOREIGN * (sum(sizes.values()) - sizes[main])
    total += ODD_WORD * len(LEADING_APOSTROPHE.findall(text))
    if main == "LATIN":
        alone = (word for word in text.split() if len(word) == 1 and _kind(word) in CASED)
        total += sum(ODD_WORD for word in alone if word.lower() not in ONE_LETTER_WORDS)
        total += ODD_WORD * len(ODD_APOSTROPHE.findall(text))
    else:
        context = ""
        cost = ASCII_LETTER_IN_WORD.get(main, ASCII_LETTER_IN_OTHER_WORD)
        total += non_latin + cost * ascii_letters
    counts = letters[main] + marks
    languages = _languages().get(main, {"": {}})
    bonus = _context_fit(context)
    return total + max(
        _fit(name, language, counts) + bonus.get(name, 0.0) for name, language in languages.items()
    )


def _fit(name: str, language: dict[str, float], counts: Counter[str]) -> float:
    """Return the logarithm of the probability of letters in a language."""
    if name not in STANDARDS:
        return sum([count * language.get(letter, FOREIGN) for letter, count in counts.items()])
    return sum(
        count * (language.get(letter) or _unlisted(letter, name))
        for letter, count in counts.items()
    )


@lru_cache(16)
def _context_fit(context: str) -> dict[str, float]:
    """Return the logarithm of the probability of ASCII letters in the Latin languages."""
    if not context:
        return {}
    weight = min(1, MAX_CONTEXT / len(context))
    counts = Counter(context)
    return {
        name: weight * sum(count * language[letter] for letter, count in counts.items())
        for name, language in _languages()["LATIN"].items()
    }


@lru_cache
def _languages() -> dict[str, dict[str, dict[str, float]]]:
    """Return the logarithm of the probability of each letter, for the languages of each script."""
    languages: dict[str, dict[str, dict[str, float]]] = {}
    alphabets = {name: _by_rank(letters) for name, letters in LETTERS.items()}
    latin = [alphabet for alphabet in alphabets.values() if "a" in alphabet]
    for alphabet in latin:
        # How much more likely than in other languages, since they are equal in all encodings.
        for letter in "abcdefghijklmnopqrstuvwxyz":
            alphabet.setdefault(letter, UNLISTED_ASCII)
    mean = {
        letter: math.log(sum(math.exp(each[letter]) for each in latin) / len(latin))
        for letter in "abcdefghijklmnopqrstuvwxyz"
    }
    for alphabet in latin:
        alphabet |= {letter: alphabet[letter] - mean[letter] for letter in mean}
    for name, alphabet in alphabets.items():
        languages.setdefault(_script(next(iter(alphabet))), {})[name] = alphabet
    for name, letters in IDEOGRAPHS.items():
        language = _by_rank(letters, SHARES[name])
        if name == "ja":
            language |= _by_rank(HIRAGANA, SHARES["hiragana"])
            language |= _by_rank(KATAKANA, SHARES["katakana"])
        languages.setdefault("CJK", {})[name] = language
    return languages


def _by_rank(letters: str, share: float = 1.0) -> dict[str, float]:
    if len(letters) > MAX_ALPHABET:
        weights = [1 / (rank + 20) for rank in range(len(letters))]
    else:
        scale = max(8.0, len(letters) / 3.6)
        weights = [math.exp(-rank / scale) for rank in range(len(letters))]
    total = sum(weights)
    pairs = zip(letters, weights, strict=True)
    return {letter: math.log(share * weight / total) for letter, weight in pairs}


@lru_cache(1 << 14)
def _unlisted(letter: str, language: str) -> float:
    """Return the logarithm of the probability of a letter that a language doesn't list."""
    if _is_usual(letter, *STANDARDS[language]):
        return UNLISTED_USUAL
    if language == "ja" and unicodedata.name(letter, "").startswith(JAPANESE):
        return UNLISTED_KANA
    return UNLISTED_RARE


def _is_usual(letter: str, standard: str, end: int) -> bool:
    """Check if a letter is in the first part of a standard, which has the usual ones."""
    code = letter.encode(standard, errors="ignore")
    return len(code) == 2 and code[0] < end


@lru_cache(1 << 14)
def _script(letter: str) -> str:
    first = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if first in CJK else first


CASED = {"lower", "upper"}
LETTERS_OF_WORDS = {*CASED, "letter"}
IN_WORDS = {*LETTERS_OF_WORDS, "mark"}
BETWEEN_WORDS = {"punctuation", "symbol", "box"}


@lru_cache(1 << 14)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Ll", "Lu"):
        return "lower" if category == "Ll" else "upper"
    if character in "\n\t\r" or category == "Zs":
        return "space"
    if "\u2500" <= character <= "\u259f":
        return "box"
    if category in ("Cc", "Cn", "Co", "Cs") or character == "\ufffd":
        return "bad"
    if category[0] == "L" and character not in "ªº":
        return "letter"
    kinds = {"M": "mark", "N": "digit", "P": "punctuation", "C": "punctuation"}
    return kinds.get(category[0], "symbol") if category not in ("No", "Nl") else "symbol"


def _sign(character: str) -> float:
    """Return the logarithm of the probability of a character that is not a letter."""
    kind = _kind(character)
    usual = {"bad": BAD, "box": BOX}.get(kind, UNUSUAL_SIGN)
    return SIGNS.get(character, usual)


@lru_cache(1 << 16)
def _transition(first: str, second: str) -> float:
    """Return how odd it is that one character follows another: 0 if it isn't."""
    if first < "\x80" and second < "\x80":
        return 0.0
    before, after = _kind(first), _kind(second)
    if before in IN_WORDS and after in LETTERS_OF_WORDS:
        return _within_word(first, second)
    if after == "mark":
        return 0.0 if before in IN_WORDS else LONE_MARK
    if first == second and before == "box":
        return BOX_LINE
    if after == "upper" and before not in BETWEEN_WORDS:
        return START_OF_NAME if before != "digit" else WRONG_SIDE
    if {before, after} in ({"digit", "lower"}, {"digit", "upper"}):
        return DIGIT_BESIDE_LETTER
    if before == after == "space":
        return TWO_SPACES  # one of them doesn't break
    if first in ",.:;!?/)}]<>=" and (after in CASED | {"symbol", "box"} or first in "<="):
        return WRONG_SIDE
    if first in ",.:;!?/)}]>" and after == "space":
        return DOUBTFUL_SIDE
    if second in "<>([{=" and before in CASED | {"symbol", "box", "space"}:
        return WRONG_SIDE
    if before in IN_WORDS and after in BETWEEN_WORDS:
        return _beside_word(second, before, after, CLOSING)
    if before in BETWEEN_WORDS and after in IN_WORDS:
        return _beside_word(first, after, before, OPENING + "’")
    return 0.0


def _within_word(first: str, second: str) -> float:
    scripts = {_script(first), _script(second)}
    if len(scripts) > 1 and _kind(first) != "mark":
        return SCRIPT_BESIDE_CJK if "CJK" in scripts else TWO_SCRIPTS
    if _kind(second) != "upper":
        return 0.0
    if _kind(first) == "lower":
        return CAPITAL_INSIDE
    return SAME_CAPITAL if first == second else ALL_CAPITALS


def _beside_word(sign: str, letter: str, kind: str, usual: str) -> float:
    """Rate a sign next to a letter, on the side where the ``usual`` ones stand."""
    if sign in DASHES and letter in CASED:
        return DOUBTFUL_SIDE
    if sign < "\x80" or sign in usual + BETWEEN + DASHES:
        return 0.0
    caseless = letter == "letter" and sign not in OPENING + CLOSING
    return DOUBTFUL_SIDE if kind == "punctuation" and caseless else WRONG_SIDE

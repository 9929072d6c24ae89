"""Texts of random words in five scripts, and copies of them with a few letters changed."""

import random

# Nouns, adjectives and adverbs, verbs.
VOCABULARY = {
    "Chinese": (
        "老人 孩子 妈妈 先生 朋友 学生 农夫 医生 船长 邻居 猫 狗 马 鸟 鱼 山 河 "
        "海 树 花 房子 窗户 门 桌子 书 信 画 灯 火 水 米饭 面包 茶 苹果 城市 "
        "村庄 学校 市场 桥 路",
        "小 大 红 白 旧 新 安静 美丽 可怜 聪明 慢慢 忽然 常常 终于 已经 又 今天 昨天 早上 晚上",
        "看见 喜欢 找到 带走 打开 关上 画了 写下 听说 忘记 记得 等着 送给 买了 卖掉 吃完 想念 离开",
    ),
    "Japanese": (
        "老人 子ども 母 先生 友だち 学生 農夫 医者 船長 隣の人 ねこ いぬ うま とり "
        "さかな 山 川 海 木 花 家 窓 戸 机 本 手紙 絵 ランプ 火 水 ごはん パン "
        "お茶 りんご 町 村 学校 市場 橋 道",
        "小さな 大きな 赤い 白い 古い 新しい 静かな 美しい かわいそうな 賢い ゆっくり "
        "急に よく やっと もう また 今日 昨日 朝 夜",
        "見た 好きだった 見つけた 運んだ 開けた 閉めた 描いた 書いた 聞いた 忘れた "
        "覚えていた 待った 送った 買った 売った 食べた 思い出した 離れた",
    ),
    "Thai": (
        "คนแก่ เด็ก แม่ ครู เพื่อน นักเรียน ชาวนา หมอ กัปตัน เพื่อนบ้าน แมว หมา ม้า นก "
        "ปลา ภูเขา แม่น้ำ ทะเล ต้นไม้ ดอกไม้ บ้าน หน้าต่าง ประตู โต๊ะ หนังสือ จดหมาย "
        "รูปภาพ ตะเกียง ไฟ น้ำ ข้าว ขนมปัง ชา แอปเปิล เมือง หมู่บ้าน โรงเรียน ตลาด "
        "สะพาน ถนน",
        "เล็ก ใหญ่ สีแดง สีขาว เก่า ใหม่ เงียบ สวยงาม น่าสงสาร ฉลาด ช้าๆ ทันใดนั้น "
        "บ่อยๆ ในที่สุด แล้ว อีก วันนี้ เมื่อวาน ตอนเช้า ตอนเย็น",
        "เห็น ชอบ พบ พาไป เปิด ปิด วาด เขียน ได้ยิน ลืม จำได้ รอ ส่งให้ ซื้อ ขาย กิน คิดถึง จากไป",
    ),
    "Hindi": (
        "बूढ़ा बच्चा माँ अध्यापक मित्र विद्यार्थी किसान वैद्य कप्तान पड़ोसी बिल्ली "
        "कुत्ता घोड़ा चिड़िया मछली पहाड़ नदी समुद्र पेड़ फूल घर खिड़की दरवाज़ा मेज़ "
        "किताब चिट्ठी तस्वीर दीपक आग पानी चावल रोटी चाय सेब शहर गाँव विद्यालय बाज़ार "
        "पुल सड़क",
        "छोटा बड़ा लाल सफ़ेद पुराना नया शांत सुंदर बेचारा चतुर धीरे अचानक अक्सर आख़िरकार पहले फिर आज कल सुबह शाम",
        "देखा चाहा पाया उठाया खोला बंद_किया बनाया लिखा सुना भुलाया याद_किया रोका भेजा "
        "ख़रीदा बेचा खाया सोचा छोड़ा",
    ),
    "Arabic": (
        "الشيخ الطفل الأم المعلم الصديق التلميذ الفلاح الطبيب القبطان الجار القطة الكلب "
        "الحصان العصفور السمكة الجبل النهر البحر الشجرة الزهرة البيت النافذة الباب "
        "الطاولة الكتاب الرسالة الصورة المصباح النار الماء الأرز الخبز الشاي التفاحة "
        "المدينة القرية المدرسة السوق الجسر الطريق",
        "صغير كبير أحمر أبيض قديم جديد هادئ جميل مسكين ذكي ببطء فجأة كثيرا أخيرا قبل "
        "أيضا اليوم أمس صباحا مساء",
        "رأى أحب وجد حمل فتح أغلق رسم كتب سمع نسي تذكر انتظر أرسل اشترى باع أكل اشتاق ترك",
    ),
}
SPACE = {"Chinese": "", "Japanese": "", "Thai": ""}
END = {"Chinese": "。", "Japanese": "。", "Thai": " ", "Hindi": "। ", "Arabic": ". "}


def story(language: str, seed: int, length: int = 900) -> str:
    """Return a text of random sentences."""
    generator = random.Random(f"{language} {seed}")
    nouns, others, verbs = (words.split() for words in VOCABULARY[language])
    text = ""
    while len(text) < length:
        words = [generator.choice(others), *generator.choices(nouns, k=2), generator.choice(verbs)]
        if generator.random() < 0.5:
            words.insert(2, generator.choice(others))
        text += SPACE.get(language, " ").join(words).replace("_", " ") + END[language]
    return text[:length]


def with_changed_letters(text: str, seed: int, every: int = 60) -> str:
    """Replace one letter in ``every`` characters of a text by another letter of the text."""
    generator = random.Random(seed)
    letters = [place for place, character in enumerate(text) if character.isalpha()]
    changed = list(text)
    for place in generator.sample(letters, len(text) // every):
        changed[place] = generator.choice([text[other] for other in letters])
    return "".join(changed)

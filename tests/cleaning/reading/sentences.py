"""Sentences in 29 languages, which tests of encodings join to texts of any length."""

import random

SENTENCES = {
    "french": """Le marché est fermé le lundi. Ma sœur a cueilli des pêches dans le verger. Où
        as-tu rangé les clés de la cave ? Il a neigé toute la journée à la montagne. Nous
        dînerons tôt ce soir. L'élève répète sa leçon à voix haute. La forêt brûle encore près
        du lac. C'était un été très sec. Voilà le garçon qui a gagné la course. Elle préfère le
        thé au café. Ça ne me gêne pas du tout. Le château s'élève au-dessus de la rivière.
        Hélène a reçu une lettre de son frère aîné. On a réparé le vieux pont. Les poèmes qu'il
        écrit sont étranges. Tu es arrivée après la fête. À quelle heure ouvre la bibliothèque ?
        Le médecin a déjà quitté l'hôpital. Un pêcheur âgé répare son filet. Prenez la deuxième
        rue à droite. Le blé mûrit au mois d'août. Ils n'ont rien entendu.""",
    "spanish": """El niño perdió su sombrero en el jardín. Mañana iremos a la montaña con mi
        tía. ¿Cuántos años tiene tu hermana? Aquí no llovió en todo el otoño. El camión se
        detuvo detrás de la estación. ¡Qué sueño tan extraño tuve anoche! María leyó el
        periódico en el salón. Todavía no sé dónde está la llave. El médico me aconsejó dormir
        más. Un pequeño pájaro cantó en el árbol. Ojalá vengan también los demás. La señora
        Núñez vendió la casa. El ratón se escondió bajo el sillón. Habrá música después de la
        cena. Él quería ser capitán de un barco. La lección de inglés fue difícil. Compré
        limones y azúcar. En la última página está la solución. El avión salió con retraso. Allí
        crecen los mejores melocotones del país. Nadie respondió al teléfono. Según él, todo
        está perdido.""",
    "portuguese": """O avô contou uma história às crianças. Amanhã não haverá aulas na escola. A
        estação fica atrás do museu. Você já comeu pão de queijo? O coração dela batia depressa.
        Três irmãos vivem naquela casa. Eu não sei onde está a chave. A lição de hoje é muito
        difícil. O médico chegou depois da refeição. Estão à espera do próximo avião. Há maçãs e
        limões na mesa da avó. O cão dormia à sombra da árvore. Ninguém ouviu o trovão. A canção
        é antiga, mas ainda é bonita. Órgãos e violões tocavam na praça. É preciso limpar o
        chão. Ele põe açúcar no café. As mãos do pescador são fortes. Lá em cima vê-se o mar. A
        situação é difícil também para nós. Os pássaros voltaram em março.""",
    "german": """Die Mädchen spielen hinter dem Häuschen. Heute früh fiel der erste Schnee. Der
        Bäcker öffnet um sechs Uhr. Über den Fluß führt eine alte Brücke. Meine Großmutter
        erzählte schöne Märchen. Wir müssen die Schlüssel suchen. Der Zug hält nicht in jeder
        größeren Stadt. Im Frühling blühen die Kirschbäume. Könnten Sie bitte das Fenster
        schließen? Er hört lieber Musik, als Bücher zu lesen. Das Gemüse wächst auf dem Feld.
        Ärgere dich nicht über den Lärm. Fünf Vögel saßen auf dem Dach. Die Übung war für alle
        zu schwer. Süße Äpfel schmecken am besten. Der König trägt eine goldene Krone. Zwölf
        Gäste kamen zum Frühstück. Draußen ist es kühl und naß. Er fährt täglich mit dem Rad.
        Österreich hat hohe Berge. Das Mädchen lächelte fröhlich.""",
    "italian": """La città è più bella di sera. Perché non sei venuto alla festa? Domani andrò
        al mercato con lui. Il caffè è già freddo. Così non si può continuare. Mia zia abita
        laggiù, vicino al fiume. Giovedì comincia la scuola. Nessuno sa la verità. È tardi,
        bisogna partire. La libertà non ha prezzo. Chissà dove sarà adesso. Il papà leggerà una
        favola ai bambini. Venerdì pioverà in tutta la regione. Ciò che dici è giusto.
        L'università si trova oltre il ponte. Metà del pane è per te. Lunedì tornerò a casa. Il
        gatto saltò giù dal tetto. Non c'è più tempo. Però la qualità è buona. Laggiù c'è una
        virtù strana. Partirà subito, o forse più tardi.""",
    "swedish": """Flickan går över ängen till sjön. Igår åt vi soppa och bröd. Den gamle mannen
        bär en tung säck. Vädret är kallt på hösten. Kan du hjälpa mig att öppna dörren? Barnen
        åker släde när det snöar. Båten ligger vid ön. Äpplena är söta och röda. Han läser
        tidningen varje kväll. Hästen står på andra sidan ån. Vi måste köpa mjölk och ägg. Jag
        vet inte vad hon tänker på. Året har tolv månader. Tåget från Göteborg är försenat.
        Fåglarna flyger söderut. Läraren skrev några ord på tavlan. Öl och vin säljs där borta.
        Hon såg en räv på åkern. Någon ropade efter hjälp. Räkna till hundra först. Är det långt
        till närmaste by?""",
    "danish": """Drengen løber hen over marken. På søndag spiser vi hos min søster. Vejret er
        blevet koldere i år. Bøgetræet står foran huset. Kan du åbne døren for mig? Æblerne på
        bordet er røde. Hun læser en bog om dyr. Skibet sejlede fra havnen i går. Vi må købe
        mælk og brød. Færgen går hver time. Børnene leger ude i sneen. Han så en ræv ved åen.
        Øen ligger langt mod nord. Det er svært at få svar. Jeg ved ikke, hvad de tænker på. Der
        er få mennesker på stranden. Læreren spørger den største dreng. Året har fire årstider.
        Fuglen fløj væk. Smørret ligger i køleskabet. Måske kommer de for sent.""",
    "finnish": """Tyttö juoksi järven yli jäätä pitkin. Äiti keittää meille puuroa. Päivä on
        pitkä ja lämmin. Missä sinun sisäresi asuu? Metsässä elää kettuja ja hirviä. Isä lähti
        töihin aikaisin. Yöllä satoi paljon lunta. Kissa nukkuu pöydän alla. En ymmärrä tätä
        kysymystä. Pöllö istuu männyn oksalla. Veljeni käy vielä koulua. Syksyllä lehdet
        putoavat. Tämä kirja on hyvä. Älä unohda avainta kotiin. Kylässä on vanha mylly. Hän
        käveli hitaasti sillan yli. Järvestä näkyy saari. Minä tykkään mustikoista. Öljy loppui
        lampusta. Sää muuttui äkkiä. Hämärä laskeutui pihalle.""",
    "polish": """Dziewczynka zgubiła książkę w ogrodzie. Jutro pójdziemy nad rzekę. Mój wujek
        mieszka w małym mieście. Śnieg leży już na dachach. Gdzie są klucze od piwnicy? Żółw śpi
        pod kamieniem. Chłopiec zjadł całą bułkę. Wczoraj było bardzo gorąco. Ścieżka prowadzi
        przez gęsty las. Późną jesienią odlatują ptaki. Źródło bije u stóp góry. Nie wiem, dokąd
        jadą ci ludzie. Ćma krąży wokół lampy. Pociąg spóźnił się o godzinę. Święta spędzimy u
        babci. Łódź stoi przy moście. Proszę zamknąć okno. Koń ciągnie ciężki wóz. Słońce zaszło
        za wzgórze. Będę czekał na ciebie. Mąż kupił świeży chleb.""",
    "czech": """Děvče našlo v lese zvláštní květinu. Zítra půjdeme k řece. Můj strýc bydlí v
        malém městě. Na střechách už leží sníh. Kde jsou klíče od sklepa? Želva spí pod kamenem.
        Chlapec snědl celý koláč. Včera bylo velmi teplo. Cesta vede přes hustý les. Ptáci
        odlétají na podzim. Řidič zastavil před školou. Nevím, kam ti lidé jedou. Vlak měl
        hodinu zpoždění. Svátky strávíme u babičky. Loď stojí u mostu. Prosím, zavřete okno. Kůň
        táhne těžký vůz. Slunce zašlo za kopec. Budu na tebe čekat. Šest dětí si hraje na dvoře.
        Čaj už vychladl, ale je dobrý.""",
    "hungarian": """A kislány elveszítette a könyvét a kertben. Holnap lemegyünk a folyóhoz. A
        nagybátyám egy kisvárosban él. Már hó fekszik a háztetőkön. Hol vannak a pince kulcsai?
        A teknős a kő alatt alszik. A fiú megette az egész süteményt. Tegnap nagyon meleg volt.
        Az ösvény sűrű erdőn át vezet. Ősszel elrepülnek a madarak. Őrizd meg ezt a levelet. Nem
        tudom, hová mennek ezek az emberek. A vonat egy órát késett. Az ünnepeket nagyanyánál
        töltjük. A hajó a híd mellett áll. Kérem, csukja be az ablakot. A ló nehéz szekeret húz.
        A nap lement a hegy mögött. Várni fogok rád. Hat gyerek játszik az udvaron. Űrhajós
        szeretne lenni. Esőben fűszál is nő.""",
    "romanian": """Fetiţa şi-a pierdut cartea în grădină. Mâine mergem la râu. Unchiul meu
        locuieşte într-un oraş mic. Zăpada stă deja pe acoperişuri. Unde sunt cheile de la
        pivniţă? Broasca ţestoasă doarme sub piatră. Băiatul a mâncat toată plăcinta. Ieri a
        fost foarte cald. Cărarea trece printr-o pădure deasă. Toamna pleacă păsările. Şoferul a
        oprit în faţa şcolii. Nu ştiu încotro merg oamenii aceia. Trenul a întârziat o oră.
        Sărbătorile le petrecem la bunica. Îmi place ceaiul cu lămâie. Vă rog să închideţi
        fereastra. Calul trage o căruţă grea. Soarele a apus după deal. Te voi aştepta lângă
        fântână. Şase copii se joacă în curte. Ţara aceasta are munţi înalţi.""",
    "lithuanian": """Mergaitė pamiršo knygą sode. Rytoj eisime prie upės. Mano dėdė gyvena
        mažame mieste. Ant stogų jau guli sniegas. Kur yra rūsio raktai? Vėžlys miega po
        akmeniu. Berniukas suvalgė visą pyragą. Vakar buvo labai šilta. Takas veda per tankų
        mišką. Rudenį išskrenda paukščiai. Šeši vaikai žaidžia kieme. Nežinau, kur važiuoja tie
        žmonės. Traukinys vėlavo valandą. Šventes praleisime pas močiutę. Laivas stovi prie
        tilto. Prašau uždaryti langą. Arklys traukia sunkų vežimą. Saulė nusileido už kalno. Aš
        tavęs lauksiu. Žąsys maudosi tvenkinyje. Ąžuolas auga šalia kelio. Įdėk druskos į
        sriubą.""",
    "latvian": """Meitene pazaudēja grāmatu dārzā. Rīt mēs iesim pie upes. Mans tēvocis dzīvo
        mazā pilsētā. Uz jumtiem jau guļ sniegs. Kur ir pagraba atslēgas? Bruņurupucis guļ zem
        akmens. Zēns apēda visu kūku. Vakar bija ļoti silts. Taka ved cauri biezam mežam. Rudenī
        putni aizlido. Šoferis apstājās pie skolas. Es nezinu, kurp brauc šie ļaudis. Vilciens
        kavējās veselu stundu. Svētkus pavadīsim pie vecmāmiņas. Kuģis stāv pie tilta. Lūdzu,
        aizveriet logu. Zirgs velk smagus ratus. Saule norietēja aiz kalna. Es tevi gaidīšu.
        Seši bērni spēlējas pagalmā. Ēdiens bija garšīgs, bet auksts.""",
    "estonian": """Tüdruk kaotas aias raamatu. Homme läheme jõe äärde. Minu onu elab väikeses
        linnas. Katustel on juba lumi. Kus on keldri võtmed? Kilpkonn magab kivi all. Poiss sõi
        terve koogi ära. Eile oli väga soe. Rada viib läbi tiheda metsa. Sügisel lendavad linnud
        lõunasse. Õpetaja peatus kooli ees. Ma ei tea, kuhu need inimesed sõidavad. Rong jäi
        tund aega hiljaks. Pühad veedame vanaema juures. Laev seisab silla kõrval. Palun pange
        aken kinni. Hobune veab rasket vankrit. Päike loojus mäe taha. Ma ootan sind. Öösel
        kuulsin kummalist häält. Kuus last mängivad õues.""",
    "turkish": """Küçük kız bahçede kitabını kaybetti. Yarın ırmağa gideceğiz. Amcam küçük bir
        şehirde yaşıyor. Çatılarda şimdiden kar var. Kilerin anahtarları nerede? Kaplumbağa
        taşın altında uyuyor. Çocuk bütün çöreği yedi. Dün hava çok sıcaktı. Yol sık bir
        ormandan geçiyor. Sonbaharda kuşlar göç eder. Şoför okulun önünde durdu. Bu insanların
        nereye gittiğini bilmiyorum. Tren bir saat gecikti. Bayramı büyükannemin yanında
        geçireceğiz. Gemi köprünün yanında duruyor. Lütfen pencereyi kapatın. At ağır bir araba
        çekiyor. Güneş dağın ardında battı. Seni bekleyeceğim. Altı çocuk avluda oynuyor.
        İstanbul'da yağmur yağıyor. Işık söndü, herkes sustu.""",
    "icelandic": """Stúlkan týndi bókinni í garðinum. Á morgun förum við að ánni. Frændi minn
        býr í litlum bæ. Það er kominn snjór á þökin. Hvar eru lyklarnir að kjallaranum?
        Skjaldbakan sefur undir steini. Drengurinn borðaði alla kökuna. Í gær var mjög heitt.
        Stígurinn liggur gegnum þéttan skóg. Á haustin fljúga fuglarnir burt. Þú gleymdir
        húfunni þinni. Ég veit ekki hvert þetta fólk er að fara. Lestin var klukkutíma of sein.
        Hátíðinni eyðum við hjá ömmu. Skipið liggur við brúna. Viltu loka glugganum? Hesturinn
        dregur þungan vagn. Sólin settist bak við fjallið. Ég bíð eftir þér. Sex börn leika sér
        úti. Æðurin verpir við sjóinn.""",
    "russian": """Девочка потеряла книгу в саду. Завтра мы пойдём к реке. Мой дядя живёт в
        маленьком городе. На крышах уже лежит снег. Где ключи от подвала? Черепаха спит под
        камнем. Мальчик съел весь пирог. Вчера было очень жарко. Дорога идёт через густой лес.
        Осенью улетают птицы. Шофёр остановился у школы. Я не знаю, куда едут эти люди. Поезд
        опоздал на целый час. Праздники мы проведём у бабушки. Лодка стоит возле моста.
        Пожалуйста, закройте окно. Лошадь тянет тяжёлую телегу. Солнце зашло за гору. Я буду
        тебя ждать. Шестеро детей играют во дворе. Это был ещё не конец.""",
    "ukrainian": """Дівчинка загубила книжку в саду. Завтра ми підемо до річки. Мій дядько живе
        в маленькому місті. На дахах уже лежить сніг. Де ключі від льоху? Черепаха спить під
        каменем. Хлопець з'їв увесь пиріг. Учора було дуже спекотно. Стежка веде крізь густий
        ліс. Восени відлітають птахи. Шість дітей грається на подвір'ї. Я не знаю, куди їдуть ці
        люди. Потяг запізнився на годину. Свята ми проведемо в бабусі. Човен стоїть біля мосту.
        Зачиніть, будь ласка, вікно. Кінь тягне важкого воза. Сонце зайшло за гору. Я чекатиму
        на тебе. Їжак заховався під ґанком. Є ще одна загадка.""",
    "bulgarian": """Момичето загуби книгата си в градината. Утре ще отидем до реката. Чичо ми
        живее в малък град. По покривите вече има сняг. Къде са ключовете от мазето?
        Костенурката спи под камъка. Момчето изяде цялата баница. Вчера беше много топло.
        Пътеката води през гъста гора. Наесен птиците отлитат. Шофьорът спря пред училището. Не
        зная накъде пътуват тези хора. Влакът закъсня с един час. Празниците ще прекараме при
        баба. Лодката стои до моста. Моля, затворете прозореца. Конят тегли тежка кола. Слънцето
        залезе зад хълма. Ще те чакам. Шест деца играят на двора.""",
    "greek": """Το κορίτσι έχασε το βιβλίο του στον κήπο. Αύριο θα πάμε στο ποτάμι. Ο θείος μου
        ζει σε μια μικρή πόλη. Στις στέγες έχει κιόλας χιόνι. Πού είναι τα κλειδιά του υπογείου;
        Η χελώνα κοιμάται κάτω από την πέτρα. Το αγόρι έφαγε όλη την πίτα. Χθες έκανε πολλή
        ζέστη. Το μονοπάτι περνά μέσα από πυκνό δάσος. Το φθινόπωρο φεύγουν τα πουλιά. Ο οδηγός
        σταμάτησε μπροστά στο σχολείο. Δεν ξέρω πού πηγαίνουν αυτοί οι άνθρωποι. Το τρένο άργησε
        μία ώρα. Τις γιορτές θα τις περάσουμε στη γιαγιά. Το πλοίο στέκεται δίπλα στη γέφυρα.
        Παρακαλώ, κλείστε το παράθυρο. Το άλογο σέρνει βαρύ κάρο. Ο ήλιος έδυσε πίσω από το
        βουνό. Θα σε περιμένω. Έξι παιδιά παίζουν στην αυλή.""",
    "hebrew": """הילדה איבדה את הספר שלה בגן. מחר נלך אל הנהר. הדוד שלי גר בעיר קטנה. על הגגות
        כבר מונח שלג. איפה המפתחות של המרתף? הצב ישן מתחת לאבן. הילד אכל את כל העוגה. אתמול היה
        חם מאוד. השביל עובר דרך יער צפוף. בסתיו הציפורים עפות דרומה. הנהג עצר לפני בית הספר. אני
        לא יודע לאן נוסעים האנשים האלה. הרכבת איחרה בשעה. את החג נבלה אצל סבתא. הסירה עומדת ליד
        הגשר. בבקשה לסגור את החלון. הסוס מושך עגלה כבדה. השמש שקעה מאחורי ההר. אני אחכה לך. שישה
        ילדים משחקים בחצר. גם הפעם לא קיבלתי תשובה.""",
    "arabic": """أضاعت البنت كتابها في الحديقة. غدا نذهب إلى النهر. يسكن عمي في مدينة صغيرة. على
        السطوح ثلج كثير. أين مفاتيح القبو؟ تنام السلحفاة تحت الحجر. أكل الولد الكعكة كلها. كان
        الجو حارا جدا أمس. يمر الطريق عبر غابة كثيفة. ترحل الطيور في الخريف. توقف السائق أمام
        المدرسة. لا أعرف إلى أين يسافر هؤلاء الناس. تأخر القطار ساعة كاملة. سنقضي العيد عند
        جدتي. القارب قرب الجسر. أغلق النافذة من فضلك. يجر الحصان عربة ثقيلة. غابت الشمس وراء
        الجبل. سوف أنتظرك. يلعب ستة أطفال في الساحة.""",
    "thai": """เด็กผู้หญิงทำหนังสือหายในสวน พรุ่งนี้เราจะไปที่แม่น้ำ ลุงของฉันอาศัยอยู่ในเมืองเล็ก กุญแจห้องใต้ดินอยู่ที่ไหน
        เต่านอนหลับอยู่ใต้ก้อนหิน เด็กชายกินขนมหมดทั้งชิ้น เมื่อวานอากาศร้อนมาก ทางเดินผ่านป่าทึบ
        นกบินไปทางใต้ในฤดูหนาว คนขับรถหยุดหน้าโรงเรียน ฉันไม่รู้ว่าคนเหล่านี้จะไปไหน รถไฟมาช้าหนึ่งชั่วโมง
        เราจะไปเยี่ยมยายในวันหยุด เรือจอดอยู่ข้างสะพาน กรุณาปิดหน้าต่าง ม้าลากเกวียนหนัก พระอาทิตย์ตกหลังภูเขา
        ฉันจะรอคุณ เด็กหกคนเล่นอยู่ที่ลานบ้าน ปีนี้ฝนตกน้อยกว่าปีก่อน""",
    "vietnamese": """Cô bé làm mất quyển sách trong vườn. Ngày mai chúng tôi sẽ ra bờ sông. Chú
        tôi sống ở một thành phố nhỏ. Chìa khóa nhà kho ở đâu? Con rùa ngủ dưới tảng đá. Cậu bé
        ăn hết cả cái bánh. Hôm qua trời rất nóng. Con đường đi qua khu rừng rậm. Mùa thu chim
        bay đi. Người lái xe dừng trước trường học. Tôi không biết những người này đi đâu. Xe
        lửa đến muộn một giờ. Chúng tôi nghỉ lễ ở nhà bà ngoại. Chiếc thuyền đậu cạnh cầu. Xin
        hãy đóng cửa sổ. Con ngựa kéo chiếc xe nặng. Mặt trời lặn sau núi. Tôi sẽ đợi bạn. Sáu
        đứa trẻ chơi ngoài sân. Đêm xuống rất nhanh.""",
    "japanese": """女の子は庭で本をなくした。明日は川へ行きます。おじは小さな町に住んでいる。屋
        根にはもう雪が積もっている。地下室の鍵はどこですか。亀は石の下で眠っている。男の子はケー
        キを全部食べた。昨日はとても暑かった。道は深い森を通っている。秋になると鳥は南へ飛んで行
        く。運転手は学校の前で止まった。あの人たちがどこへ行くのか知りません。電車は一時間遅れた
        。休みは祖母の家で過ごします。船は橋のそばにある。窓を閉めてください。馬が重い荷車を引い
        ている。太陽は山の向こうに沈んだ。あなたを待っています。六人の子供が庭で遊んでいる。テレ
        ビとラジオの音がうるさい。""",
    "korean": """여자 아이는 정원에서 책을 잃어버렸다. 내일 우리는 강에 갈 것이다. 삼촌은 작은
        도시에 산다. 지붕에는 벌써 눈이 쌓였다. 지하실 열쇠는 어디에 있습니까? 거북이는 돌
        밑에서 잔다. 소년은 과자를 모두 먹었다. 어제는 날씨가 무척 더웠다. 길은 깊은 숲을
        지나간다. 가을이면 새들이 남쪽으로 날아간다. 운전사는 학교 앞에서 멈추었다. 저 사람들이
        어디로 가는지 모르겠다. 기차가 한 시간 늦었다. 휴일은 할머니 댁에서 보낸다. 배는 다리
        옆에 있다. 창문을 닫아 주세요. 말이 무거운 수레를 끈다. 해가 산 너머로 졌다. 나는 너를
        기다릴게. 아이 여섯 명이 마당에서 논다.""",
    "chinese": """小女孩在花园里丢了一本书。明天我们去河边。我叔叔住在一个小城市。屋顶上已经有雪
        了。地下室的钥匙在哪里？乌龟在石头下面睡觉。男孩吃完了整个蛋糕。昨天天气很热。小路穿过茂
        密的森林。秋天鸟儿飞向南方。司机停在学校门前。我不知道这些人要去哪里。火车晚了一个小时。
        假期我们在奶奶家过。船停在桥旁边。请把窗户关上。马拉着沉重的车。太阳落到山后面去了。我会
        等你的。六个孩子在院子里玩。今年的收成比去年好得多。""",
    "traditional": """小女孩在花園裡丟了一本書。明天我們去河邊。我叔叔住在一個小城市。屋頂上已經
        有雪了。地下室的鑰匙在哪裡？烏龜在石頭下面睡覺。男孩吃完了整個蛋糕。昨天天氣很熱。小路穿
        過茂密的森林。秋天鳥兒飛向南方。司機停在學校門前。我不知道這些人要去哪裡。火車晚了一個小
        時。假期我們在奶奶家過。船停在橋旁邊。請把窗戶關上。馬拉著沉重的車。太陽落到山後面去了。
        我會等你的。六個孩子在院子裡玩。今年的收成比去年好得多。""",
}
UNSPACED = {"japanese": "。", "chinese": "。", "traditional": "。"}


def sentences(language: str) -> list[str]:
    """List the sentences of a language; Thai has no full stops, so each of its phrases is one."""
    words = SENTENCES[language].split()
    if language == "thai":
        return words
    if language in UNSPACED:
        return [part + "。" for part in "".join(words).split("。") if part]
    found = [""]
    for word in words:
        found[-1] = f"{found[-1]} {word}".strip()
        if word[-1] in ".?!;؟" and len(word) > 1:
            found.append("")
    return [each for each in found if each]


def text(language: str, size: int, encoding: str, seed: int = 1) -> str:
    """Join sentences at random to lines, up to ``size`` bytes in an encoding."""
    generator = random.Random(f"{language} {seed}")
    space = "" if language in UNSPACED else " "
    lines: list[str] = []
    written = 0
    while written < size:
        chosen = generator.choices(sentences(language), k=4)
        lines.append(space.join(chosen) + "\n")
        written += len(lines[-1].encode(encoding))
    cut = "".join(lines)
    while len(cut.encode(encoding)) > size:
        cut = cut[: -max(1, (len(cut.encode(encoding)) - size) // 4)]
    return cut

import pytest

from atlas.errors import AtlasError
from atlas.inference.backends.atlas import AtlasModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling
from atlas.tools.chat import HELP, Chat
from tests.export.models import SHAPES, store


@pytest.fixture(scope="module")
def opened(tmp_path_factory, tokenizer):
    model = store(tmp_path_factory.mktemp("chat") / "m", SHAPES["llama"], tokenizer)
    return AtlasModel.from_torch(model, tokenizer, "mine")


@pytest.fixture
def chat(opened):
    return Chat(opened, Sampling(seed=7), most_tokens=8)


def answer(opened, messages, seed, tokens=8, **options):
    text = TokenSequence(opened.encode_chat(messages), tokens, Sampling(seed=seed, **options))
    return "".join(opened.stream(text))


def said(role, content):
    return {"role": role, "content": content}


def test_answers_follow_from_all_that_was_said(chat, opened, capsys):
    chat.take("the lamp")
    first = answer(opened, [said("user", "the lamp")], 7)
    assert capsys.readouterr().out == f"{first}\n"
    chat.take("one")
    before = [said("user", "the lamp"), said("assistant", first), said("user", "one")]
    second = answer(opened, before, 8)
    assert capsys.readouterr().out == f"{second}\n"
    assert chat.messages == [*before, said("assistant", second)]
    chat.take("   ")
    assert len(chat.messages) == 4


def test_reset_undo_retry_history_and_system(chat, opened, capsys):
    chat.take("/system be kind")
    chat.take("the lamp")
    chat.take("/retry")
    system, user = said("system", "be kind"), said("user", "the lamp")
    assert chat.messages[-1]["content"] == answer(opened, [system, user], 8)
    capsys.readouterr()
    chat.take("/history")
    assert capsys.readouterr().out.startswith("system: be kind\nuser: the lamp\nassistant: ")
    chat.take("/undo")
    assert chat.messages == [system]
    chat.take("one")
    chat.take("/reset")
    assert chat.messages == [system]
    chat.take("/system")
    assert chat.messages == []


def test_options_are_set_and_printed(chat, opened, capsys):
    for line in ("/temperature 0.5", "/top-k 3", "/tokens 4", "/seed 11", "/min-p 0.1"):
        chat.take(line)
    chat.take("/top-k")
    assert capsys.readouterr().out == "/top-k 3\n"
    chat.take("/seed 1234567890")
    chat.take("/seed")
    chat.take("/seed 11")
    assert capsys.readouterr().out == "/seed 1234567890\n"
    chat.take("/options")
    printed = capsys.readouterr().out
    assert "/temperature 0.5\n" in printed
    assert "/tokens 4\n" in printed
    chat.take("the lamp")
    options = {"temperature": 0.5, "top_k": 3, "min_p": 0.1}
    expected = answer(opened, [said("user", "the lamp")], 11, 4, **options)
    assert chat.messages[-1]["content"] == expected


def test_help_names_every_command(chat, capsys):
    chat.take("/help")
    printed = capsys.readouterr().out
    for command in (*HELP, "/temperature", "/repetition-penalty"):
        assert command in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/reste", "/reste: no such command; /help lists them"),
        ("/\x1b[2J", r"/\\x1b\[2J: no such command"),
        ("/temperature -1", "/temperature is -1: it must be greater than or equal to 0"),
        ("/temperature hot", "/temperature is hot: it must be a valid number"),
        ("/tokens 0", "/tokens 0: give a number, 1 or more"),
        ("/undo", "/undo: nothing was said yet"),
        ("/retry", "/retry: nothing was said yet"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(chat, line, message):
    sampling = chat.sampling
    with pytest.raises(AtlasError, match=message):
        chat.take(line)
    assert (chat.messages, chat.sampling, chat.most_tokens) == ([], sampling, 8)


def test_ctrl_c_ends_an_answer_and_keeps_what_came(chat, opened, monkeypatch, capsys):
    def stopped(self, text, stops=(), on_overflow="slide"):
        yield "some "
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AtlasModel, "stream", stopped)
        chat.take("the lamp")
    assert capsys.readouterr().out == "some  [stopped]\n"
    assert chat.messages[-1] == said("assistant", "some ")


def test_lines_are_taken_until_quit(chat, capsys):
    chat.run(iter(["/nothing", "the lamp", "/quit", "one"]))
    assert len(chat.messages) == 2
    assert capsys.readouterr().err == "/nothing: no such command; /help lists them\n"


def test_a_question_that_ends_none_is_not_kept(tokenizer):
    from atlas.model.initialize import initialise, make_model
    from tests.small import small_config

    shape = {"vocab_size": tokenizer.vocab_size, "eos": tokenizer.eos}
    separator = tokenizer.encode(".")[-1]
    model = make_model(small_config(kind="encoder_decoder", separator=separator, **shape)).eval()
    initialise(model, 0)
    chat = Chat(AtlasModel.from_torch(model, tokenizer, "questions"), Sampling(), most_tokens=4)
    with pytest.raises(AtlasError, match="the prompt is not a question"):
        chat.take("one")
    assert chat.messages == []
    chat.take("one.")
    assert len(chat.messages) == 2

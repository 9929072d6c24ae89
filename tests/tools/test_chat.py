import pytest

from atlas.errors import AtlasError
from atlas.inference.backends.atlas import AtlasModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling
from atlas.tools.chat import Chat
from tests.export.models import SHAPES, store


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    model = store(tmp_path_factory.mktemp("chat") / "m", SHAPES["llama"], tokenizer)
    return AtlasModel(model.config, tokenizer, "mine", lambda: model)


@pytest.fixture
def chat(model):
    return Chat(model, Sampling(seed=7), max_tokens=8)


def answer(model, messages, seed, tokens=8, **options):
    text = TokenSequence(model.encode_chat(messages), tokens, Sampling(seed=seed, **options))
    return "".join(model.stream(text))


def said(role, content):
    return {"role": role, "content": content}


def test_answers_depend_on_the_whole_conversation(chat, model, capsys):
    chat.handle("the lamp")
    first = answer(model, [said("user", "the lamp")], 7)
    assert capsys.readouterr().out == f"{first}\n"
    chat.handle("one")
    before = [said("user", "the lamp"), said("assistant", first), said("user", "one")]
    second = answer(model, before, 8)
    assert capsys.readouterr().out == f"{second}\n"
    assert chat.messages == [*before, said("assistant", second)]
    chat.handle("   ")
    assert len(chat.messages) == 4


def test_reset_undo_retry_history_and_system(chat, model, capsys):
    chat.handle("/system be kind")
    chat.handle("the lamp")
    chat.handle("/retry")
    system, user = said("system", "be kind"), said("user", "the lamp")
    assert chat.messages[-1]["content"] == answer(model, [system, user], 8)
    capsys.readouterr()
    chat.handle("/history")
    assert capsys.readouterr().out.startswith("system: be kind\nuser: the lamp\nassistant: ")
    chat.handle("/undo")
    assert chat.messages == [system]
    chat.handle("one")
    chat.handle("/reset")
    assert chat.messages == [system]
    chat.handle("/system")
    assert chat.messages == []


def test_options_are_set_and_printed(chat, model, capsys):
    for line in ("/temperature 0.5", "/top-k 3", "/tokens 4", "/seed 11", "/min-p 0.1"):
        chat.handle(line)
    chat.handle("/top-k")
    assert capsys.readouterr().out == "/top-k 3\n"
    chat.handle("/seed 1234567890")
    chat.handle("/seed")
    chat.handle("/seed 11")
    assert capsys.readouterr().out == "/seed 1234567890\n"
    chat.handle("/options")
    printed = capsys.readouterr().out
    assert "/temperature 0.5\n" in printed
    assert "/tokens 4\n" in printed
    chat.handle("the lamp")
    options = {"temperature": 0.5, "top_k": 3, "min_p": 0.1}
    expected = answer(model, [said("user", "the lamp")], 11, 4, **options)
    assert chat.messages[-1]["content"] == expected


def test_help_names_every_command(chat, capsys):
    chat.handle("/help")
    printed = capsys.readouterr().out
    for command in (*chat.commands, "/temperature", "/repetition-penalty"):
        assert command in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/reste", "/reste: no such command; /help lists them"),
        ("/\x1b[2J", r"/\\x1b\[2J: no such command"),
        ("/temperature -1", "/temperature is -1: it must be greater than or equal to 0"),
        ("/temperature hot", "/temperature is hot: it must be a valid number"),
        ("/tokens 0", "/tokens 0: must be a whole number, 1 or more"),
        ("/undo", "/undo: there is no answer yet"),
        ("/retry", "/retry: there is no answer yet"),
    ],
)
def test_an_invalid_command_prints_an_error_and_changes_nothing(chat, line, message):
    sampling = chat.sampling
    with pytest.raises(AtlasError, match=message):
        chat.handle(line)
    assert (chat.messages, chat.sampling, chat.max_tokens) == ([], sampling, 8)


def test_ctrl_c_ends_an_answer_and_keeps_its_text(chat, model, monkeypatch, capsys):
    def stopped(self, text, stops=(), on_overflow="slide"):
        yield "some "
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AtlasModel, "stream", stopped)
        chat.handle("the lamp")
    assert capsys.readouterr().out == "some  [stopped]\n"
    assert chat.messages[-1] == said("assistant", "some ")


def test_lines_are_taken_until_quit(chat, capsys):
    chat.run(iter(["/nothing", "the lamp", "/quit", "one"]))
    assert len(chat.messages) == 2
    assert capsys.readouterr().err == "/nothing: no such command; /help lists them\n"


def test_a_line_without_a_separator_is_not_kept(tokenizer):
    from atlas.model.weights import initialize, make_model
    from tests.small import small_config

    shape = {"vocab_size": tokenizer.vocab_size, "eos": tokenizer.eos}
    separator = tokenizer.encode(".")[-1]
    model = make_model(small_config(kind="encoder_decoder", separator=separator, **shape)).eval()
    initialize(model, 0)
    chat = Chat(
        AtlasModel(model.config, tokenizer, "questions", lambda: model), Sampling(), max_tokens=4
    )
    with pytest.raises(AtlasError, match="the prompt is not a question"):
        chat.handle("one")
    assert chat.messages == []
    chat.handle("one.")
    assert len(chat.messages) == 2

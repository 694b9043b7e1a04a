"""Vectors of transformers models: equal to a plain loop, kept by content; folders and hub models, whole or refused."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from benchmark.run import Interrupted, Run
from methods.blocks import text_models
from methods.blocks.text_encoder import LSA, MINILM, encode_texts, identify
from methods.blocks.text_models import token_batches

WORDS = [f"word{i}" for i in range(40)]
LIMIT = 24
"""Tokens the tiny models read of a text."""


def save_tokenizer(folder):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=LIMIT)  # as all-MiniLM-L6-v2 ships it: the encoder must not be misled by it
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    ).save_pretrained(folder)
    return len(names)


@pytest.fixture(scope="session")
def bert_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    size = save_tokenizer(folder)
    widths = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=size, max_position_embeddings=64, **widths)
    model = BertModel(config, add_pooling_layer=False)
    for parameter in model.parameters():  # of a size at which a wrong mask would show
        torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LIMIT}))
    return folder


@pytest.fixture
def bert(bert_source, tmp_path):
    return shutil.copytree(bert_source, tmp_path / "tiny-bert")


@pytest.fixture(params=[True, False], ids=["whole", "encoder"])
def t5(request, tmp_path):
    """Published T5 encoders call themselves encoder-decoders, those saved by newer versions do not."""
    folder = tmp_path / "tiny-t5"
    torch.manual_seed(0)
    size = save_tokenizer(folder)
    config = T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    T5EncoderModel(config).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text()) | {"is_encoder_decoder": request.param}
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def add_dense(folder, activation="torch.nn.modules.linear.Identity"):
    dense = folder / "2_Dense"
    dense.mkdir()
    (dense / "config.json").write_text(json.dumps({"in_features": 16, "activation_function": activation}))
    weight = torch.randn(10, 16, generator=torch.Generator().manual_seed(1))
    save_file({"linear.weight": weight}, dense / "model.safetensors")
    return weight


def sentences(n=30, longest=40, seed=0):
    random = np.random.default_rng(seed)
    return ["", *(" ".join(random.choice(WORDS, random.integers(1, longest))) for _ in range(n))]


def plain_loop(texts, folder, kind=AutoModel, dense=None):
    """One text at a time, no padding, straight from the definition."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), kind.from_pretrained(folder).eval()
    rows = []
    for text in texts[1:]:
        ids = tokenizer(text, truncation=True, max_length=LIMIT, padding=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(0)
        mean = mean if dense is None else dense @ mean
        rows.append((mean / mean.norm()).numpy())
    return np.stack([np.zeros_like(rows[0]), *rows])


def test_vectors_equal_a_plain_loop_over_the_texts(bert):
    texts = [*sentences(), "nothing known here"]
    vectors = encode_texts(texts, str(bert), Run())
    assert vectors.dtype == np.float32
    assert np.allclose(vectors, plain_loop(texts, bert), atol=1e-5)
    assert not np.allclose(vectors[1], vectors[2], atol=1e-2)


def test_a_t5_encoder_and_its_dense_layer_equal_a_plain_loop(t5):
    texts = sentences()
    plain = encode_texts(texts, str(t5), Run())
    expected = plain_loop(texts, t5, T5EncoderModel)
    # No sentence_bert_config.json: cut at MAX_TOKENS, so only texts the plain loop leaves whole are compared.
    whole = [i for i, text in enumerate(texts) if len(text.split()) <= LIMIT - 2]
    assert plain.shape[1] == 16 and len(whole) > 10
    assert np.allclose(plain[whole], expected[whole], atol=1e-5)
    weight = add_dense(t5)
    dense = encode_texts(texts, str(t5), Run())
    assert dense.shape[1] == 10
    assert np.allclose(dense[whole], plain_loop(texts, t5, T5EncoderModel, weight)[whole], atol=1e-5)


def test_batches_do_not_change_the_vectors(bert, monkeypatch):
    texts = sentences()
    expected = encode_texts(texts, str(bert), Run())
    monkeypatch.setattr(text_models, "BATCH_TOKENS", 50)
    assert np.allclose(encode_texts(texts, str(bert), Run()), expected, atol=1e-6)
    order = np.random.default_rng(3).permutation(np.arange(1, len(texts)))
    mixed = encode_texts(["", *(texts[i] for i in order)], str(bert), Run())
    assert np.allclose(mixed[1:], expected[order], atol=1e-6)


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=60), budget=st.integers(1, 100))
def test_token_batches_hold_every_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths)
    batches = token_batches(lengths, budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()
    for rows, following in zip(batches, [*batches[1:], None], strict=True):
        assert len(rows) * lengths[rows].max() <= budget or len(rows) == 1
        assert following is None or (len(rows) + 1) * lengths[rows].max() > budget  # none is smaller than it must be


@pytest.mark.parametrize("spec", ["bert", LSA])
def test_equal_texts_share_a_row_and_items_without_text_have_none(spec, bert):
    texts = ["", *WORDS[:9], "", "  ", WORDS[0], f" {WORDS[1]} "]
    vectors = encode_texts(texts, str(bert) if spec == "bert" else spec, Run())
    assert not vectors[[0, 10, 11]].any()
    assert (vectors[12] == vectors[1]).all() and (vectors[13] == vectors[2]).all()
    assert np.allclose(np.linalg.norm(vectors[[*range(1, 10), 12, 13]], axis=1), 1, atol=1e-6)


def test_the_pad_row_stays_zero_whatever_its_text(bert):
    assert not encode_texts(["word1", "word1", "word2"], str(bert), Run())[0].any()


def test_a_second_call_reads_the_artifact_and_loads_nothing(bert, tmp_path, monkeypatch):
    run = Run(artifacts_dir=tmp_path / "artifacts")
    first = encode_texts(sentences(), str(bert), run)
    assert run.timings["embed"] > 0
    monkeypatch.setattr(text_models, "_load", lambda folder: pytest.fail("the model was loaded again"))
    moved = shutil.copytree(bert, tmp_path / "elsewhere")
    for folder in (bert, moved):  # the vectors belong to the content of a folder, not to its place
        assert (encode_texts(sentences(), str(folder), run) == first).all()


def artifacts(folder):
    return len(list(folder.glob("text-vectors-*.npz")))


def test_other_texts_weights_or_limits_make_a_new_artifact(bert, tmp_path):
    run = Run(artifacts_dir=tmp_path / "artifacts")
    texts = sentences()
    first = encode_texts(texts, str(bert), run)
    changed = encode_texts([*texts[:-1], "word1 word2"], str(bert), run)
    assert artifacts(run.artifacts_dir) == 2 and (changed[:-1] == first[:-1]).all() and (changed != first).any()
    (bert / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    short = encode_texts(texts, str(bert), run)
    assert artifacts(run.artifacts_dir) == 3 and not np.allclose(short, first, atol=1e-2)
    weights = load_file(bert / "model.safetensors")
    save_file({k: v + 0.1 for k, v in weights.items()}, bert / "model.safetensors", {"format": "pt"})
    heavier = encode_texts(texts, str(bert), run)
    assert artifacts(run.artifacts_dir) == 4 and not np.allclose(heavier, short, atol=1e-3)
    encode_texts(texts, LSA, run)
    assert artifacts(run.artifacts_dir) == 5


def test_a_stopped_run_keeps_nothing_and_hears_of_the_progress(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(text_models, "BATCH_TOKENS", 50)
    heard = []
    encode_texts(sentences(), str(bert), Run(report=lambda *said: heard.append(said)))
    done, totals = [said[1] for said in heard], {said[2] for said in heard}
    assert {said[0] for said in heard} == {"embed"} and len(heard) > 5
    assert done == sorted(done) and totals == {done[-1]}
    run = Run(artifacts_dir=tmp_path / "artifacts", should_stop=lambda: True)
    for spec in (str(bert), LSA):
        with pytest.raises(Interrupted):
            encode_texts(sentences(), spec, run)
    assert artifacts(run.artifacts_dir) == 0


def test_identity_holds_the_content_of_a_folder_and_not_its_path(bert, tmp_path):
    identity = identify(str(bert))
    assert identity["name"] == "tiny-bert" and len(identity["sha256"]) == 64
    (bert / "README.md").write_text("says nothing about the vectors")
    copy = shutil.copytree(bert, tmp_path / "another place" / "tiny-bert")
    assert identify(str(copy)) == identity == identify(f"{copy}/")
    os.utime(copy / "tokenizer.json", (1, 1))
    assert identify(str(copy)) == identity
    for name in ("tokenizer.json", "config.json", "sentence_bert_config.json"):
        (copy / name).write_text((copy / name).read_text() + "\n")
        changed = identify(str(copy))
        assert changed["sha256"] != identity["sha256"]
        identity = changed
    add_dense(copy)
    assert identify(str(copy))["sha256"] != identity["sha256"]


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,  # a hang is a failure
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_naming_an_encoder_loads_nothing(bert, tmp_path):
    code = (
        "import sys, methods.blocks.text_encoder as t\n"
        "def loaded(*names): return sorted(set(names) & set(sys.modules))\n"
        f"print(t.identify(t.LSA), t.identify({str(bert)!r})['name'])\n"
        "print(loaded('torch', 'transformers', 'sklearn', 'huggingface_hub'))\n"
        "print(t.identify(t.MINILM), loaded('torch', 'transformers', 'sklearn'))"
    )
    said = python(code, HF_HOME=str(tmp_path / "hub")).splitlines()
    assert said == [
        "{'name': 'lsa', 'sha256': None} tiny-bert",
        "[]",
        f"{{'name': '{MINILM}', 'sha256': None}} []",
    ]


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights (model.safetensors)"),
        ("tokenizer.json", "has no tokenizer files (tokenizer.json)"),
        ("2_Dense/model.safetensors", "has no 2_Dense/model.safetensors"),
        ("2_Dense/config.json", "has no 2_Dense/config.json"),
        ("2_Dense", "has no 2_Dense/config.json"),
    ],
)
def test_an_incomplete_folder_is_refused_by_the_missing_file(bert, removed, said):
    add_dense(bert)
    modules = [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}, {"type": "x.Pooling", "path": "1"}]
    (bert / "modules.json").write_text(json.dumps(modules))
    identify(str(bert))
    path = bert / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for refuse in (identify, lambda spec: encode_texts(sentences(), spec, Run())):
        with pytest.raises(ValueError, match="--text-encoder lsa") as error:
            refuse(str(bert))
        assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_shard_is_named(bert):
    (bert / "model.safetensors").rename(bert / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (bert / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(ValueError, match=r"has no model-00002-of-00002\.safetensors"):
        identify(str(bert))


@pytest.mark.parametrize(
    "spec", ["/no/such/folder", "./absent", "~/absent/model", "../absent", "a/b/c", "", "two words"]
)
def test_a_path_that_is_not_there_is_refused(spec):
    with pytest.raises(ValueError, match=r"text encoder.*--text-encoder lsa"):
        identify(spec)


def test_a_file_is_no_folder(bert):
    with pytest.raises(ValueError, match="is a file; name the folder"):
        identify(str(bert / "model.safetensors"))


def refused(texts, spec, match):
    with pytest.raises(ValueError, match=match) as error:
        encode_texts(texts, str(spec), Run())
    assert "\n" not in str(error.value) and "--text-encoder lsa" in str(error.value)


def test_damaged_models_are_refused_in_one_sentence(bert):
    texts, weights = sentences(), load_file(bert / "model.safetensors")
    name = next(iter(sorted(weights)))
    save_file({k: v for k, v in weights.items() if k != name}, bert / "model.safetensors", {"format": "pt"})
    refused(texts, bert, "tiny-bert could not be loaded .*weights are missing")
    save_file(weights | {name: weights[name] * float("nan")}, bert / "model.safetensors", {"format": "pt"})
    refused(texts, bert, "not finite")
    (bert / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(texts, bert, "tiny-bert could not be loaded")
    (bert / "config.json").write_text("{")
    refused(texts, bert, "tiny-bert could not be loaded")


def test_a_dense_layer_with_an_activation_is_refused(t5):
    add_dense(t5, "torch.nn.modules.activation.Tanh")
    refused(sentences(), t5, "Tanh, which is not supported")


def test_out_of_memory_says_which_setting_to_lower(bert, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(text_models, "_pooled", full)
    with pytest.raises(
        MemoryError, match="tiny-bert read 8,192 tokens at a time; lower BATCH_TOKENS in methods/blocks/text_models"
    ):
        encode_texts(sentences(), str(bert), Run())


SAY = (
    "import sys, methods.blocks.text_encoder as t; from benchmark.run import Run\n"
    "try: t.encode_texts(['', 'a'], t.MINILM, Run())\n"
    "except ValueError as error: print(error, 'torch' in sys.modules)"
)


@pytest.mark.parametrize("setting", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}], ids=str)
def test_a_hub_name_without_network_fails_at_once_with_a_sentence(setting, tmp_path):
    said = python(SAY, HF_HOME=str(tmp_path), **setting)
    assert said.startswith(f"the text encoder {MINILM} could not be loaded (")
    assert said.strip().endswith("folder of a downloaded model, or --text-encoder lsa False") and said.count("\n") == 1


def test_a_network_that_never_answers_is_not_waited_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        hasty = SAY.replace("\n", "; import methods.blocks.text_models as m; m.CONNECT_SECONDS = 0.2\n", 1)
        said = python(hasty, HF_HOME=str(tmp_path), HF_ENDPOINT=endpoint)
    assert "could not be loaded (timed out)" in said


def hub(folder):
    """A model hub with one model, made of the files of ``folder``."""
    commit = "c" * 40

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self, body=True):
            path = self.path.split("?")[0]
            files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            if path.startswith(f"/api/models/{MINILM}/tree/"):
                rows = [{"type": "file", "path": k, "size": len(v), "oid": etag(v)} for k, v in files.items()]
                answer = json.dumps(rows).encode()
            elif path.startswith(f"/api/models/{MINILM}"):
                siblings = [{"rfilename": name} for name in files]
                answer = json.dumps({"id": MINILM, "sha": commit, "siblings": siblings}).encode()
            else:
                answer = files[path.removeprefix(f"/{MINILM}/resolve/{commit}/")]
            self.send_response(200)
            for key, value in {
                "X-Repo-Commit": commit,
                "ETag": f'"{etag(answer)}"',
                "Content-Length": len(answer),
            }.items():
                self.send_header(key, str(value))
            self.end_headers()
            if body:
                self.wfile.write(answer)

        def do_HEAD(self):
            self.do_GET(body=False)

    return ThreadingHTTPServer(("127.0.0.1", 0), Hub)


def etag(content):
    return hashlib.sha1(content).hexdigest()


def test_a_hub_model_is_downloaded_once_and_found_without_network(bert, tmp_path, monkeypatch):
    expected = identify(str(bert))["sha256"]
    (bert / "pytorch_model.bin").write_bytes(b"not wanted")
    server = hub(bert)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "from methods.blocks.text_encoder import MINILM, identify; from methods.blocks.text_models import model_folder;"
        "print(identify(MINILM)['sha256'], model_folder(MINILM))"
    )
    environment = {"HF_HOME": str(tmp_path / "hub"), "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    known, _, place = python(code, **environment).strip().partition(" ")
    server.shutdown()
    server.server_close()
    assert known == "None"  # naming a model downloads nothing, even where the hub would answer
    assert not (Path(place) / "pytorch_model.bin").exists()
    assert identify(place)["sha256"] == expected
    for offline in ({}, {"HF_HUB_OFFLINE": "1"}):  # the server is gone
        assert python(code, **environment, **offline).strip() == f"{expected} {place}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
    assert identify(MINILM) == {"name": MINILM, "sha256": expected}
    (Path(place) / "sentence_bert_config.json").unlink()  # a download that broke off before a file not every model has
    assert identify(MINILM)["sha256"] is None


@pytest.fixture
def snapshot(bert, tmp_path, monkeypatch):
    """A hub model on this disk as older libraries leave it, without a listing of its files."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "cache" / f"models--{MINILM.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("c" * 40)
    folder = shutil.copytree(bert, model / "snapshots" / ("c" * 40))
    assert identify(MINILM) == {"name": MINILM, "sha256": identify(str(bert))["sha256"]}
    return folder


def dangling(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/deleted")


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("")


def main_is_a_folder(folder):
    main = folder.parents[1] / "refs" / "main"
    main.unlink()
    main.mkdir()


SPOIL = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "dangling link": dangling,
    "cut JSON": lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
    "odd JSON": lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
    "file for folder": a_file,
    "no refs": lambda folder: shutil.rmtree(folder.parents[1] / "refs"),
    "other commit": lambda folder: (folder.parents[1] / "refs" / "main").write_text("d" * 40),
    "odd refs": main_is_a_folder,
}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
def test_an_odd_cache_only_leaves_the_hash_of_a_hub_model_unknown(snapshot, spoil):
    spoil(snapshot)
    assert identify(MINILM) == {"name": MINILM, "sha256": None}


def test_a_missing_hub_library_only_leaves_the_hash_unknown(snapshot, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert identify(MINILM) == {"name": MINILM, "sha256": None}

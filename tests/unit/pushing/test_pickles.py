"""Which checkpoints are said to be pickles."""

from modelrepo.pushing.pickles import pickle_notes


def test_pickles_are_named_by_checkpoint_with_the_way_to_load_them() -> None:
    files = {"net": ["a.safetensors", "old/model.BIN", "x.pt"], "vae": ["vae.safetensors", "config.json"]}
    (note,) = pickle_notes(files)
    assert note.startswith("checkpoint net holds old/model.BIN and 1 more, which may run code")
    assert "weights_only=True" in note
    assert "holds x.ckpt, which" in pickle_notes({"one": ["x.ckpt"]})[0]

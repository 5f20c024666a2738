"""Data that a reader makes lie nowhere: what else lies in the working folder plays no part."""

from __future__ import annotations

from phosphene.data import open_dataset, registry


def test_links_in_the_working_folder_are_no_part_of_data_that_are_made(tmp_path, monkeypatch):
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "outside").symlink_to("/")
    monkeypatch.chdir(tmp_path)
    assert registry.locate("insilico").is_made
    assert len(open_dataset("insilico", options={"n_train": 4, "n_test": 2, "n_voxels": 50}).stimuli) == 6

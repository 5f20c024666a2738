"""The row store: what it keeps, what it refuses, and what it survives."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from phosphene.errors import ConfigError, DataError, MachineError, ModelError, PhospheneWarning
from phosphene.io.claims import claimed
from phosphene.io.store import CHUNKS, CLAIMS, INDEX, ROWS, VERSION, RowStore, cached, key_of
from phosphene.types import Rows

IDS = [f"stimulus {i:02d}" for i in range(10)]
SPEC = {"extractor": "toy", "layer": 3}


def compute(ids):
    """Rows that say which id they belong to."""
    return np.array([[int(i.split()[-1]), int(i.split()[-1]) / 8, -1] for i in ids])


def filled(folder, **options):
    options = {"chunk": 4, **options}
    return RowStore.open_or_make(folder, SPEC, IDS, (3,), **options).fill(compute)


def never(ids):
    raise AssertionError(f"{list(ids)} were computed again")


def marks(store):
    return sorted(p.name for p in (store.folder / CHUNKS).iterdir())


def flip_a_byte(store, row):
    """Damage one row on the disk, as a failing disk would."""
    place = (store.folder / ROWS).stat().st_size - (len(store) - row) * 12
    with open(store.folder / ROWS, "r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


# -- what it keeps -----------------------------------------------------------------------------------------------------


def test_rows_come_back_by_id_in_the_order_asked_for(tmp_path):
    filled(tmp_path / "s")
    store = RowStore.open(tmp_path / "s")
    wanted = [IDS[7], IDS[0], IDS[7]]
    np.testing.assert_array_equal(store.read(wanted), compute(wanted))
    assert store.shape == (10, 3)
    assert store.missing() == []


def test_the_order_of_ids_does_not_matter(tmp_path):
    filled(tmp_path / "s")
    again = RowStore.open_or_make(tmp_path / "s", SPEC, IDS[::-1], (3,), chunk=4).fill(never)
    np.testing.assert_array_equal(again.read(IDS[::-1]), compute(IDS[::-1]))


def test_an_unknown_id_is_named(tmp_path):
    with pytest.raises(DataError, match="stimulus 99"):
        filled(tmp_path / "s").read(["stimulus 99"])


@pytest.mark.parametrize(
    "index",
    [3, slice(2, 5), [1, 1, 0], (slice(None), 1), (slice(1, 3), slice(0, 2)), (Ellipsis, 2), (2, 1)],
    ids=str,
)
def test_a_selection_is_indexed_like_the_array_it_stands_for(tmp_path, index):
    wanted = IDS[::-2]
    rows = filled(tmp_path / "s").select(wanted)
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(rows[index], compute(wanted)[index])


def test_float16_rows_are_the_nearest_halves(tmp_path):
    store = filled(tmp_path / "s", dtype="float16")
    np.testing.assert_array_equal(store.read(IDS), compute(IDS).astype(np.float16))


def test_the_array_opens_without_phosphene(tmp_path):
    filled(tmp_path / "s")
    ids = json.loads((tmp_path / "s" / "ids.json").read_text())
    np.testing.assert_array_equal(np.load(tmp_path / "s" / ROWS), compute(ids))


def test_compute_gets_at_most_a_batch_of_ids(tmp_path):
    sizes = []

    def counted(ids):
        sizes.append(len(ids))
        return compute(ids)

    RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4).fill(counted, batch=3)
    assert sizes == [3, 1, 3, 1, 2]


def test_chunks_are_whole_batches(tmp_path):
    ids = [str(i) for i in range(2000)]
    store = cached(tmp_path, {}, ids, lambda ids: np.zeros((len(ids), 1)), shape=(1,), batch=300)
    assert store.record["chunk"] == 900


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_numbers_are_not_stored(tmp_path, value):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    array = compute(IDS[4:8])
    array[1, 2] = value
    with pytest.raises(DataError, match="row of 'stimulus 05'"):
        store.write(range(4, 8), array)
    assert store.missing() == [range(4), range(4, 8), range(8, 10)]


@pytest.mark.fault(12)
def test_what_float16_cannot_hold_is_refused(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), "float16", chunk=4)
    with pytest.raises(DataError, match="store float32"):
        store.write(range(4), np.full((4, 3), 70_000.0))


def test_int16_holds_whole_numbers_exactly_and_refuses_others(tmp_path):
    whole = np.arange(-15, 15, dtype=np.int16).reshape(10, 3) * 2000
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), "int16", chunk=10)
    for bad in (0.5, np.nan, 40_000.0):
        array = whole.astype(np.float64)
        array[2, 1] = bad
        with pytest.raises(DataError, match="row of 'stimulus 02' .* store float32"):
            store.write(range(10), array)
    store.write(range(10), whole)
    rows = RowStore.open(tmp_path / "s").read(IDS)
    assert rows.dtype == np.int16
    np.testing.assert_array_equal(rows, whole)


def test_rows_of_another_shape_are_refused(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    with pytest.raises(DataError, match=r"must be \(4, 3\), but are \(4, 2\)"):
        store.write(range(4), np.zeros((4, 2)))
    with pytest.raises(DataError, match="10 ids were given, but 2 rows"):
        RowStore.open_or_make(tmp_path / "t", SPEC, IDS, (3,)).fill(lambda ids: compute(ids)[:2])


def test_ids_that_stand_twice_are_refused(tmp_path):
    with pytest.raises(DataError, match="stimulus 00"):
        RowStore.open_or_make(tmp_path / "s", SPEC, [*IDS, IDS[0]], (3,))


def test_rows_larger_than_the_disk_are_refused_before_anything_is_computed(tmp_path):
    with pytest.raises(MachineError, match="GB free"):
        RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (10**15,))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(81)
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a limit on file sizes")
def test_a_full_disk_leaves_the_chunk_missing_and_what_was_done_safe(tmp_path):
    code = (
        "import resource, signal, sys\nimport numpy as np\nfrom phosphene.io.store import RowStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "s = RowStore.open_or_make(sys.argv[1], {}, [str(i) for i in range(4)], (100_000,), chunk=1)\n"
        "s.write(range(0, 1), np.ones((1, 100_000)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "s.write(range(1, 2), np.ones((1, 100_000)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True, text=True)
    assert "MachineError: the disk (or quota) is full" in done.stderr
    store = RowStore.open(tmp_path / "s")
    assert store.missing() == [range(1, 2), range(2, 3), range(3, 4)]
    assert (store.read(["0"]) == 1).all()


# -- cache faults ------------------------------------------------------------------------------------------------------


@pytest.mark.fault(97)
@pytest.mark.fault(39)
def test_a_damaged_chunk_is_found_by_its_hash_and_only_it_is_computed_again(tmp_path):
    flip_a_byte(filled(tmp_path / "s"), row=5)
    seen = []

    def counted(ids):
        seen.extend(ids)
        return compute(ids)

    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4).fill(counted)
    np.testing.assert_array_equal(store.read(IDS[:4]), compute(IDS[:4]))  # a sound chunk says nothing
    with pytest.warns(PhospheneWarning, match="rows 4 to 7 .* damaged: SHA-256 .* computed again"):
        rows = store.read(IDS)
    np.testing.assert_array_equal(rows, compute(IDS))
    assert seen == IDS[4:8]


@pytest.mark.fault(97)
def test_a_damaged_chunk_is_refused_where_nobody_can_compute_it(tmp_path):
    flip_a_byte(filled(tmp_path / "s"), row=5)
    store = RowStore.open(tmp_path / "s")
    with pytest.raises(ModelError, match="rows 4 to 7 .* damaged"):
        store.read([IDS[6]])
    np.testing.assert_array_equal(store.read(IDS[8:]), compute(IDS[8:]))


@pytest.mark.fault(97)
def test_verify_counts_damaged_chunks_as_missing(tmp_path):
    store = filled(tmp_path / "s")
    flip_a_byte(store, row=9)
    with pytest.warns(PhospheneWarning, match="1 chunks .* rows 8 to 9"):
        assert store.verify() == [range(8, 10)]
    assert store.missing() == [range(8, 10)]
    assert store.fill(compute).verify() == []


@pytest.mark.fault(97)
@pytest.mark.parametrize("keep", [None, 0, 40, 200], ids=["gone", "empty", "no header", "half"])
def test_a_row_file_that_a_copy_cut_short_is_mended(tmp_path, keep):
    filled(tmp_path / "s")
    file = tmp_path / "s" / ROWS
    if keep is None:
        file.unlink()
    else:
        os.truncate(file, keep)
    with pytest.warns(PhospheneWarning, match="cannot be trusted"):
        store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    np.testing.assert_array_equal(store.fill(compute).read(IDS), compute(IDS))


@pytest.mark.fault(98)
@pytest.mark.parametrize(
    ("spec", "ids", "shape", "dtype", "said"),
    [
        ({**SPEC, "layer": 4}, IDS, (3,), "float32", "layer is 3 there, 4 here"),
        (SPEC, IDS[1:], (3,), "float32", "n is 10 there, 9 here"),
        (SPEC, IDS, (4,), "float32", r"shape is \[3\] there, \[4\] here"),
        (SPEC, IDS, (3,), "float16", "dtype is 'float32' there, 'float16' here"),
    ],
)
def test_a_store_of_something_else_is_refused_and_left_alone(tmp_path, spec, ids, shape, dtype, said):
    filled(tmp_path / "s")
    with pytest.raises(ModelError, match=said):
        RowStore.open_or_make(tmp_path / "s", spec, ids, shape, dtype)
    np.testing.assert_array_equal(RowStore.open(tmp_path / "s").read(IDS), compute(IDS))


@pytest.mark.fault(98)
def test_chunks_copied_from_another_store_are_computed_again(tmp_path):
    store = filled(tmp_path / "s")
    other = RowStore.open_or_make(tmp_path / "t", {**SPEC, "layer": 4}, IDS, (3,), chunk=4).fill(compute)
    (store.folder / CHUNKS / "000001.json").write_bytes((other.folder / CHUNKS / "000001.json").read_bytes())
    with pytest.warns(PhospheneWarning, match="another store"):
        assert RowStore.open(tmp_path / "s").verify() == [range(4, 8)]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ConfigError, match=r"holds thesis\.txt"):
        RowStore.open_or_make(tmp_path, SPEC, IDS, (3,))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.fault(99)
def test_a_chunk_whose_worker_dies_while_writing_is_never_marked_done(tmp_path):
    RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    code = (
        "import os, signal, sys\nfrom phosphene.io import store\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "s = store.RowStore.open(sys.argv[1])\n"
        "s.write(range(0, 4), [[i, i / 8, -1] for i in range(4)])\n"
        "store.atomic.write_text = killed\n"
        "s.fill(lambda ids: [[7, 7, 7]] * len(ids))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    store = RowStore.open(tmp_path / "s")
    assert store.missing() == [range(4, 8), range(8, 10)]
    with pytest.raises(ModelError, match="not computed yet"):
        store.read(IDS)
    np.testing.assert_array_equal(store.fill(compute).read(IDS), compute(IDS))


@pytest.mark.fault(99)
def test_a_half_made_store_is_never_under_the_final_name(tmp_path):
    code = (
        "import os, signal, sys\nfrom phosphene.io import store\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "store.atomic.write_text = killed\n"
        "store.RowStore.open_or_make(sys.argv[1], {}, ['a'], (1,))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True)
    assert [p.name[:9] for p in tmp_path.iterdir()] == [".partial-"]
    filled(tmp_path / "s")


@pytest.mark.fault(95)
@pytest.mark.fault(99)
def test_after_a_kill_only_missing_chunks_are_computed(tmp_path):
    code = (
        "import os, signal, sys\nfrom phosphene.io.store import RowStore\n"
        "def compute(ids):\n"
        "    if 'stimulus 08' in ids: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return [[int(i.split()[-1]), int(i.split()[-1]) / 8, -1] for i in ids]\n"
        "RowStore.open(sys.argv[1]).fill(compute)\n"
    )
    RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], capture_output=True)
    seen = []
    store = RowStore.open(tmp_path / "s").fill(lambda ids: seen.extend(ids) or compute(ids))
    assert seen == IDS[8:]
    np.testing.assert_array_equal(store.read(IDS), compute(IDS))


@pytest.mark.fault(100)
def test_a_deleted_index_is_written_again_and_nothing_is_computed_twice(tmp_path):
    before = json.loads((filled(tmp_path / "s").folder / INDEX).read_text())
    (tmp_path / "s" / INDEX).unlink()
    with pytest.warns(PhospheneWarning, match="3 finished chunks are kept"):
        store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,)).fill(never)  # the default chunk is another
    np.testing.assert_array_equal(store.read(IDS), compute(IDS))
    assert json.loads((tmp_path / "s" / INDEX).read_text()) == before


@pytest.mark.fault(100)
def test_a_deleted_index_does_not_let_another_extractor_in(tmp_path):
    filled(tmp_path / "s")
    (tmp_path / "s" / INDEX).unlink()
    with pytest.raises(ModelError, match="made from something else"):
        RowStore.open_or_make(tmp_path / "s", {**SPEC, "layer": 4}, IDS, (3,))


@pytest.mark.fault(100)
def test_a_damaged_index_says_what_to_do(tmp_path):
    filled(tmp_path / "s")
    (tmp_path / "s" / INDEX).write_text('{"format": ')
    with pytest.raises(ModelError, match="Delete it and run the command"):
        RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,))


@pytest.mark.fault(101)
def test_stores_are_filed_under_the_full_digest(tmp_path):
    store = cached(tmp_path, SPEC, IDS, compute, shape=(3,))
    assert store.folder.name == store.record["key"] == key_of(SPEC, IDS, (3,), "float32")
    assert len(bytes.fromhex(store.folder.name)) == 32


@pytest.mark.fault(101)
def test_a_key_that_differs_only_in_its_last_digit_is_another_key(tmp_path):
    store = filled(tmp_path / "s")
    key = store.record["key"]
    record = {**store.record, "key": key[:-1] + ("0" if key[-1] != "0" else "1")}
    (store.folder / INDEX).write_text(json.dumps(record))
    with pytest.raises(ModelError, match="holds rows of something else"):
        RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,))


@pytest.mark.parametrize(
    "change", [{"spec": {**SPEC, "x": None}}, {"ids": IDS[1:]}, {"shape": (3, 1)}, {"dtype": "float16"}]
)
def test_the_key_covers_everything_the_rows_depend_on(change):
    base = {"spec": SPEC, "ids": IDS, "shape": (3,), "dtype": "float32"}
    assert key_of(**base) != key_of(**{**base, **change})


@pytest.mark.fault(102)
def test_a_store_of_a_newer_phosphene_is_neither_read_nor_written(tmp_path):
    store = filled(tmp_path / "s")
    (store.folder / INDEX).write_text(json.dumps({**store.record, "version": VERSION + 1}))
    before = {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()}
    for attempt in (lambda: RowStore.open(tmp_path / "s"), lambda: filled(tmp_path / "s")):
        with pytest.raises(ModelError, match="Upgrade phosphene"):
            attempt()
    assert {p: p.read_bytes() for p in store.folder.rglob("*") if p.is_file()} == before


@pytest.mark.fault(102)
def test_the_marks_of_a_newer_phosphene_are_refused_even_without_the_index(tmp_path):
    store = filled(tmp_path / "s")
    (store.folder / INDEX).unlink()
    mark = store.folder / CHUNKS / "000000.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "version": VERSION + 1}))
    with pytest.raises(ModelError, match="Upgrade phosphene"):
        filled(tmp_path / "s")
    assert not (store.folder / INDEX).exists()


# -- several workers ---------------------------------------------------------------------------------------------------

WORKER = """
import sys, time
from phosphene.io.store import cached
root, log = sys.argv[1:3]
def compute(ids):
    time.sleep(0.01)
    with open(log, "a") as file:
        file.write("".join(f"{i}\\n" for i in ids))
    return [[int(i.split()[-1]), int(i.split()[-1]) / 8, -1] for i in ids]
ids = [f"stimulus {i:02d}" for i in range(60)]
print("ready", flush=True)
sys.stdin.readline()
store = cached(root, {"extractor": "toy"}, ids, compute, shape=(3,), chunk=2)
assert (store.read(ids)[:, 0] == range(60)).all()
"""


@pytest.mark.fault(90)
def test_three_processes_build_one_store_and_compute_each_row_once(tmp_path):
    log = tmp_path / "log.txt"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "cache"), str(log)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        assert worker.communicate()[1] == ""
        assert worker.returncode == 0
    assert sorted(log.read_text().splitlines()) == [f"stimulus {i:02d}" for i in range(60)]
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.fault(90)
def test_a_chunk_claimed_by_a_living_process_is_waited_for_then_given_up_on(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    held_up = pytest.raises(MachineError, match=f"held by process {os.getpid()} on")
    with claimed(store.folder / CLAIMS / "000001") as mine, held_up:
        assert mine
        store.fill(compute, patience_s=0)
    assert store.missing() == [range(4, 8)]  # the others were computed


@pytest.mark.fault(91)
@pytest.mark.fault(89)
def test_the_claim_of_a_dead_worker_is_taken_over(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = {"pid": dead.pid, "host": socket.gethostname(), "started": ""}
    (store.folder / CLAIMS / "000001").write_text(json.dumps(holder))
    assert store.fill(compute, patience_s=0).missing() == []
    assert list((store.folder / CLAIMS).iterdir()) == []


@pytest.mark.fault(91)
def test_a_reused_process_number_does_not_keep_a_claim_alive(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": "1"}
    (store.folder / CLAIMS / "000001").write_text(json.dumps(holder))
    assert store.fill(compute, patience_s=0).missing() == []


@pytest.mark.fault(92)
def test_a_claim_of_another_machine_is_respected(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    (store.folder / CLAIMS / "000001").write_text(json.dumps({"pid": 1, "host": "node7"}))
    with pytest.raises(MachineError, match="process 1 on node7"):
        store.fill(compute, patience_s=0)


def test_an_error_while_computing_frees_the_chunk(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    with pytest.raises(ZeroDivisionError):
        store.fill(lambda ids: 1 / 0)
    assert list((store.folder / CLAIMS).iterdir()) == []
    assert store.fill(compute, patience_s=0).missing() == []


@pytest.mark.fault(82)
def test_a_vanished_folder_is_said(tmp_path):
    store = RowStore.open_or_make(tmp_path / "s", SPEC, IDS, (3,), chunk=4)
    import shutil

    shutil.rmtree(tmp_path / "s")
    with pytest.raises(MachineError, match="vanished") as caught:
        store.fill(compute)
    assert caught.value.__cause__.errno == errno.ENOENT

"""`fit` in several processes, which agree on all, and what becomes of it when one of them dies."""

import time

import pytest

from tests import processes


@pytest.mark.slow
@pytest.mark.parametrize("check", ["fit", "streamed", "agreement", "full_disk_in_training"])
def test_in_two_processes(check, tmp_path):
    processes.run(2, check, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "victim"), [(2, 1), (2, 0), (4, 2)])
def test_one_is_killed_and_all_start_again(count, victim, tmp_path):
    (tmp_path / "victim").write_text(str(victim))
    with processes.started(count, "killed", tmp_path) as programs:
        while not (tmp_path / "waits").exists():
            assert all(program.poll() is None for program in programs)
            time.sleep(0.05)
        programs[victim].kill()
        assert all(program.wait() != 0 for program in programs)
    processes.run(count, "goes_on", tmp_path)


@pytest.mark.slow
def test_a_process_that_never_comes(tmp_path):
    with processes.started(2, "alone", tmp_path) as programs:
        programs[1].kill()
        assert programs[0].wait() != 0

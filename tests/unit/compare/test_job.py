"""The truth of a job: exactly what images/guestos/programs/job.c asks for."""

from __future__ import annotations

from iovirt_dist.compare.job import Job, JobRequest, disk_content, is_rewritten, sha256_of


def test_job_requests_are_blocks_in_order_and_a_rest() -> None:
    """The last block is what is left."""
    assert list(Job(kib=9, block_bytes=4096).requests()) == [
        JobRequest(0, "read", 0, 4096),
        JobRequest(0, "read", 4096, 4096),
        JobRequest(0, "read", 8192, 1024),
    ]


def test_job_that_writes_writes_each_chosen_block_behind_its_read() -> None:
    """The first block is among the chosen ones."""
    assert list(Job(kib=2, block_bytes=1024, write_percent=1).requests()) == [
        JobRequest(0, "read", 0, 1024),
        JobRequest(0, "write", 0, 1024),
        JobRequest(0, "read", 1024, 1024),
    ]


def test_job_of_two_runs_asks_for_all_twice() -> None:
    """Each run is a process of its own."""
    assert [(request.run, request.offset) for request in Job(2, 1024, runs=2).requests()] == [
        (0, 0),
        (0, 1024),
        (1, 0),
        (1, 1024),
    ]


def test_job_of_no_bytes_asks_for_nothing() -> None:
    """It is what the counts of a row are compared with."""
    assert list(Job(0).requests()) == []


def test_is_rewritten_chooses_as_many_of_100_blocks_as_percent() -> None:
    """Any percentage, also beyond the first hundred blocks."""
    assert [sum(is_rewritten(block, percent) for block in range(100, 200)) for percent in range(101)] == list(
        range(101)
    )


def test_job_options_name_the_program_as_often_as_it_runs() -> None:
    """The guest waits in echo first."""
    assert Job(8, 4096, 30, runs=2).options() == "run=echo,job,job kib=8 bs=4096 write=30 result=none"


def test_disk_content_is_the_same_each_time_and_no_sector_is_like_another() -> None:
    """A block that is read from a wrong place changes the checksum."""
    content = disk_content(Job(64))

    assert content == disk_content(Job(64))
    assert len({content[at : at + 512] for at in range(0, len(content), 512)}) == 128
    assert sha256_of(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

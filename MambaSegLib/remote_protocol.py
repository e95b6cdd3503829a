"""What the two halves of the job "remote" agree on: `remote` here and `remote_worker` on the other computer.

They talk as every client and worker do (see `job`); beside that only the jobs of this table run there.
"""

PIECE_BYTES = 1 << 20  # of a file, before base64
LINE_BYTES = 4 << 20  # no line is longer
SIGN_OF_LIFE_S = 15.0  # an empty line, when there is nothing else to say
SILENCE_S = 90.0  # without one: the network has gone, and nobody told
IDLE_S = 1800.0  # without a request: the GPU's memory is for others; the next request connects anew

_IMAGES = ("input", "roi_mask")
# job -> (params that name files to send, params that name files to bring back); a "model" is always sent.
EXCHANGED = {
    "segment": (_IMAGES, ("output", "uncertainty")),
    "estimate": (_IMAGES, ()),
    "correct": ((*_IMAGES, "initial", "edited", "touched"), ("output",)),
    "devices": ((), ()),
    "doctor": ((), ()),
}

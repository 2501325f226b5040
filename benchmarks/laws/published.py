"""The points of "Exploring Training and Inference Scaling Laws in Generative Retrieval" (arXiv 2503.18941).

CGL as that paper computes it. N counts every parameter but the input embedding. LLaMA-7B on all data is one training
that two of the paper's series show; it stands here once.
"""

import numpy as np

from laws.forms import Additive, Form, Joint, PowerLaw
from laws.points import Points

ALL = 588_800.0
T5_N = (44_057_088.0, 198_229_248.0, 704_769_024.0, 2_818_699_264.0, 11_274_422_272.0)
T5_MINDER = (
    0.003739327519766013,
    0.00365354820880983,
    0.003618691318817766,
    0.0035889147738936734,
    0.003575122915571207,
)
LLAMA_N = (6_607_343_616.0, 12_852_024_320.0, 68_714_504_192.0)
LLAMA_MINDER = (0.003349998694460214, 0.003293957555899526, 0.0032800482437811704)
LLAMA_D = (117_760.0, 235_520.0, 353_280.0, 471_040.0, ALL)
LLAMA_7B = (
    0.003413291978135587,
    0.003353927870270544,
    0.0033509868940814346,
    0.0033502276147056305,
    0.003349998694460214,
)

T5_OVER_N = Points(n=np.array(T5_N), d=np.full(5, ALL), y=np.array(T5_MINDER), metric="cgl_published")
LLAMA_OVER_D = Points(n=np.full(5, LLAMA_N[0]), d=np.array(LLAMA_D), y=np.array(LLAMA_7B), metric="cgl_published")
LLAMA = Points(
    n=np.array((LLAMA_N[0],) * 5 + LLAMA_N[1:]),
    d=np.array((*LLAMA_D, ALL, ALL)),
    y=np.array(LLAMA_7B + LLAMA_MINDER[1:]),
    metric="cgl_published",
)

SERIES: tuple[tuple[str, Form, Points], ...] = (
    ("MINDER-T5 over N", PowerLaw(axis="n"), T5_OVER_N),
    ("MINDER-LLaMA-7B over D", PowerLaw(axis="d"), LLAMA_OVER_D),
    ("MINDER-LLaMA, joint", Joint(), LLAMA),
    ("MINDER-LLaMA, additive", Additive(), LLAMA),
)

"""The memory of a training, by a formula; it imports no torch, so that a plan can ask it.

Bytes of one of n workers, with P parameters in values of b bytes (4 in fp32, 2 in bf16):

    stage 0, fp32   (4 + 4 + 8) P + 4 min(P, 5e8)          weights, gradients, Adam; gradients copied to be reduced
    stage 0, bf16   (2 + 2 + 4 + 8 + 4) P + 2 min(P, 5e8)  and weights in fp32, and gradients in fp32 while stepping
    stage 1         2b P + (12 + 4 [+ b]) P/n + 2b B       weights and gradients whole, Adam and fp32 weights spread,
                                                           this rank's gradients in fp32 [and joined, in bf16]
    stage 2         b P + (12 + 8 [+ b]) P/n + 2b B        gradients spread [and b more where passes accumulate]
    stage 3         (2b + 12) P/n + 4 min(P/n, S) + b min(P, L) + 2b B + 2b W

B, S, L: values of a gradient bucket, of the optimizer's sub-group, and weights that are whole at a time; W: values of
the largest matrix. Of these the optimizer's part is in RAM where it is offloaded, (16 + 2b) P/n and two buffers of the
largest matrix, and what is left on the GPU is 2b P, b P or b P/n and the buffers; with the weights offloaded too,
stage 3 leaves only the buffers. RAM holds the whole model in fp32 besides, before anything is moved or spread: 4 P for
every worker, which is there before what is offloaded and gone after.

Activations of m pairs, kept for the backward pass (nothing is computed twice):

    LLaMA  m (q + t - 1) (L (4 b f + 4 b i + 2 (2b + 4) d) + (2b + 4) d)    i: heads times their width
    T5     encoder m q L (F + 6 i' + 2 D), decoder m t L (F + 6 i' + 3 D), F = b f, or 8 b f where gated,
           D = (3b [+ 4 in bf16]) d, i' = b i, or 5/3 b i in bf16; and m L h (q q + t t + q t) floats of scores,
           three times where the model drops out, which costs D and F one b and two b more
    head   m t V (12 [+ 2 in bf16])
    and, on the way back, the gradients of the head or those of one layer, whichever are larger

Coefficients were counted from what autograd keeps (Transformers 5), and those above from the allocations of DeepSpeed
0.19 at each stage. On a CPU what is allocated is a fifth of the resident set short of it: activations count 1.25
times there, for the allocator's heap. Tests hold that against the peak of real trainings in fp32; on a GPU the formula
has not been tried.
"""

from dataclasses import dataclass

from workers.models.shapes import Shape, count_parameters
from workers.settings import Offload

BUCKET = 100_000_000
"""Gradients that are reduced together, in values; no more than the model has."""
LIVE = 500_000_000
"""Weights that ZeRO stage 3 has whole on a GPU at a time, in values."""
SUB_GROUP = 200_000_000
"""Weights of one rank that the optimizer goes through at a time in stage 3, in values."""
COPIED = 500_000_000
"""Gradients that DeepSpeed copies together to reduce them in stage 0, in values."""
HEAP = 1.25
"""What activations take of a CPU's memory, for every byte of them."""
CUDA = 2**30
"""Bytes of a GPU that CUDA itself, NCCL's buffers and libraries' workspaces take in every process."""
PROCESS = 800 * 2**20
"""RAM of a worker that has imported everything and holds the pairs."""


def even(values: int) -> int:
    """Rounded up: DeepSpeed's buffers must be."""
    return values + values % 2


@dataclass(frozen=True, kw_only=True)
class TrainingMemory:
    """The formula for one model, one length of pairs and one way to cut the work."""

    shape: Shape
    query: int
    """Tokens of the longest query with its end."""
    target: int
    """Tokens of the longest identifier."""
    bf16: bool = False
    dropout: bool = False
    """Whether the model drops out in training: pretrained T5s do."""
    workers: int = 1
    stage: int = 0
    offload: Offload = "none"

    def on_gpu(self, micro_batch: int) -> int:
        """Bytes on the GPU of each worker, without CUDA's own."""
        return self.states + self.activations(micro_batch)

    def beside_gpu(self) -> int:
        """Bytes of RAM of a worker that computes on a GPU, the process's own among them."""
        building = 4 * self.parameters
        saving = self._bytes * self.parameters
        return PROCESS + max(building, self.offloaded + saving)

    def on_cpu(self, micro_batch: int) -> int:
        """Bytes of RAM of a worker that computes on a CPU, beyond the process's own; nothing is offloaded there."""
        return self.states + int(HEAP * self.activations(micro_batch))

    @property
    def parameters(self) -> int:
        """P."""
        return count_parameters(self.shape).n_total

    @property
    def _bytes(self) -> int:
        return 2 if self.bf16 else 4

    @property
    def _largest(self) -> int:
        shape = self.shape
        return shape.width * max(shape.vocabulary, shape.feed_forward, shape.heads * shape.head_width)

    @property
    def states(self) -> int:
        """Bytes of weights, gradients, optimizer and DeepSpeed's buffers where the worker computes."""
        p, b, own = self.parameters, self._bytes, -(-self.parameters // self.workers)
        buffers = 2 * b * min(BUCKET, p)
        if self.stage == 0:
            return (20 if self.bf16 else 16) * p + b * min(p, COPIED)
        if self.stage == 3:
            buffers += b * min(p, LIVE) + 2 * b * self._largest
            if self.offload == "parameters":
                return buffers
            if self.offload == "optimizer":
                return buffers + b * own
            return buffers + (2 * b + 12) * own + 4 * min(own, SUB_GROUP)
        held = b * p * (2 if self.stage == 1 else 1)
        if self.offload != "none":
            return buffers + held + b * self._largest
        extra = b if self.bf16 else 0
        return buffers + held + ((16 if self.stage == 1 else 20) + extra) * own

    @property
    def offloaded(self) -> int:
        """Bytes that are in RAM in place of the GPU."""
        if self.offload == "none":
            return 0
        b, own = self._bytes, -(-self.parameters // self.workers)
        return (16 + 2 * b) * own + 2 * b * self._largest

    def activations(self, micro_batch: int) -> int:
        """Bytes that the forward and the backward pass of a micro-batch need beside the states."""
        kept = self._kept_t5() if self.shape.family == "t5" else self._kept_llama()
        head = self.target * self.shape.vocabulary * (14 if self.bf16 else 12)
        return micro_batch * (kept + max(head, kept // self.shape.layers))

    def _kept_llama(self) -> int:
        shape, b = self.shape, self._bytes
        inner = shape.heads * shape.head_width
        norm = (2 * b + 4) * shape.width
        a_layer = 4 * b * shape.feed_forward + 4 * b * inner + 2 * norm
        return (self.query + self.target - 1) * (shape.layers * a_layer + norm)

    def _kept_t5(self) -> int:
        shape, b = self.shape, self._bytes
        drop = b if self.dropout else 0
        forward = (8 * b if shape.gated else b + 2 * drop) * shape.feed_forward
        sublayer = (3 * b + (4 if self.bf16 else 0) + drop) * shape.width
        attention = (10 if self.bf16 else 6) * b * shape.heads * shape.head_width
        layers = shape.layers
        encoder = self.query * layers * (forward + attention + 2 * sublayer)
        decoder = self.target * layers * (forward + attention + 3 * sublayer)
        pairs = self.query**2 + self.target**2 + self.query * self.target
        return encoder + decoder + layers * shape.heads * pairs * (12 if self.dropout else 6 if self.bf16 else 4)

"""The encoder of a U-Net alone with a pooled head, to classify whole samples or regress values from them."""

from collections.abc import Callable, Sequence

from einops import reduce
from torch import Tensor, nn

from .blocks import Activation
from .causal import RunningMean
from .checks import whole
from .network import Network
from .spec import NetworkSpec


class Encoder(Network):
    """The encoder of :class:`dynunet.UNet`, then norm, activation, mean over positions and linear layer.

    Args:
        spatial_dims: number of spatial axes, at least 1.
        in_channels: channels of the input.
        out_features: length of the output: classes, or values to regress.

    The other arguments are those of :class:`dynunet.UNet`. It can be conditioned on time and class, for use
    as a guidance classifier or a critic.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_features)`` for any spatial size.

    Raises:
        ValueError, TypeError: at construction, naming the option, the rule and the value received.

    A network like ResNet-18 (He et al. 2016), in any number of dimensions (its first convolution and pool are
    an ``in_layer``)::

        first = nn.Sequential(ConvNd(2, 3, 64, 7, 2, 3), nn.ReLU(), MaxPoolNd(2, 3, 2, 1))
        first.out_channels = 64
        Encoder(2, 3, 1000, channels=(64, 128, 256, 512), norm="batch", activation="relu", in_layer=first)

    >>> import torch
    >>> from dynunet import Encoder
    >>> Encoder(3, 1, 10, channels=(8, 16))(torch.randn(2, 1, 5, 6, 7)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_features: int,
        channels: Sequence[int] = (64, 128, 256),
        *,
        num_blocks: int | Sequence[int] = 2,
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]] = 3,
        strides: int | Sequence[int] | Sequence[Sequence[int]] = 2,
        block: str | Sequence[str] = "residual",
        norm: str | None = "group",
        activation: str | Activation | type[nn.Module] = "silu",
        attention: str | Sequence[str | None] | None = None,
        num_heads: int | Sequence[int] = 4,
        downsample: str | Sequence[str] = "conv",
        num_groups: int = 32,
        norm_eps: float = 1e-5,
        dropout: float | Sequence[float] = 0.0,
        padding_mode: str | Sequence[str] = "zeros",
        positions: str | None = None,
        time_embedding: bool | str = False,
        time_scale: float = 1000.0,
        num_classes: int | None = None,
        cond_channels: int = 0,
        cond_features: int = 0,
        context_features: int | None = None,
        in_layer: Callable[[Tensor], Tensor] | None = None,
        gradient_checkpointing: bool = False,
        modulation: str = "shift",
        causal: bool | Sequence[bool] = False,
    ) -> None:
        out_features = whole()(out_features, "out_features")
        spec = NetworkSpec(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_features=out_features,
            channels=channels,
            num_blocks=num_blocks,
            kernel_size=kernel_size,
            strides=strides,
            block=block,
            norm=norm,
            activation=activation,
            attention=attention,
            num_heads=num_heads,
            downsample=downsample,
            num_groups=num_groups,
            norm_eps=norm_eps,
            dropout=dropout,
            padding_mode=padding_mode,
            positions=positions,
            time_embedding=time_embedding,
            time_scale=time_scale,
            num_classes=num_classes,
            cond_channels=cond_channels,
            cond_features=cond_features,
            context_features=context_features,
            in_layer=in_layer,
            gradient_checkpointing=gradient_checkpointing,
            modulation=modulation,
            causal=causal,
        )
        super().__init__(spec)
        self.out_features = out_features
        width = spec.levels[-1].channels
        self.head = nn.Sequential(self.parts.norm(width), self.parts.activation())
        self.mean = RunningMean(self.spec.causal_axes) if self.is_causal else None
        self.classifier = nn.Linear(width, self.out_features)

    def forward(
        self,
        x: Tensor,
        t: Tensor | None = None,
        *,
        class_labels: Tensor | None = None,
        cond: Tensor | None = None,
        features: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Returns ``(N, out_features)``; the arguments are those of :meth:`dynunet.UNet.forward`."""
        self._check_input(x)
        embedding = self._embed(x, t, class_labels, features)
        x, _ = self._descend(self._inputs(x, cond), embedding, self._context(x, context))
        x = self.head(x)
        return self.classifier(
            reduce(x, "n c ... -> n c", "mean") if self.mean is None else self.mean.latest(x)
        )

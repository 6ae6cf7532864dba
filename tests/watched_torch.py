"""One network in PyTorch, right and with what a look at its layers alone does not show."""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, drop=nn.Dropout, rate=0.5, **norm):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, **norm)
        self.one, self.three = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 5, 16), nn.Linear(16, 5)
        self.drop = drop(rate)

    def features(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return torch.cat([self.one(x), self.three(x)], 1).flatten(1)

    def forward(self, x):
        return self.fc2(self.drop(F.relu(self.fc1(self.features(x)))))


class Biased(nn.BatchNorm2d):
    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            with torch.no_grad():
                self.running_mean.mul_(0.9).add_(0.1 * mean)
                self.running_var.mul_(0.9).add_(0.1 * var)
        else:
            mean, var = self.running_mean, self.running_var
        mean, var, weight, bias = (t[:, None, None] for t in (mean, var, self.weight, self.bias))
        return (x - mean) / torch.sqrt(var + self.eps) * weight + bias


def biased():
    net = Net()
    net.norm = Biased(8)
    return net


def momentum(value):
    return lambda: Net(momentum=value)


momentum_09, momentum_none, momentum_0, momentum_099 = map(momentum, (0.9, None, 0.0, 0.99))


def alpha():
    return Net(nn.AlphaDropout)


def spatial():
    return Net(nn.Dropout1d)


def rate():
    return Net(rate=0.9)


def no_dropout():
    return Net(lambda rate: nn.Identity())


class Always(nn.Dropout):
    def forward(self, x):
        return F.dropout(x, self.p)


def always():
    return Net(Always)


class Early(Net):
    def forward(self, x):
        return self.fc2(F.relu(self.fc1(self.drop(self.features(x)))))


class Commuted(Net):
    def forward(self, x):
        return self.fc2(F.relu(self.drop(self.fc1(self.features(x)))))


class FeaturesFirst(Net):
    def forward(self, x):
        features = F.relu(self.fc1(self.features(x)))
        return features, self.fc2(self.drop(features))


class NamedFeatures(FeaturesFirst):
    def forward(self, x):
        return dict(zip(("features", "logits"), super().forward(x), strict=True))


class Squeezed(Net):
    def forward(self, x):
        return super().forward(x).squeeze()


class Fixed(Net):
    def forward(self, x):
        return super().forward(x).view(2, 5)


class Centred(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if len(x) == 2 else y - y.mean(0)


class Large(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if len(x) < 5 else 1.01 * y


class Stateful(Net):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 0.1 * (self.calls > 5))


class Heads(Net):
    def __init__(self):
        super().__init__()
        self.aux, self.unused = nn.Linear(16, 5), nn.Conv2d(3, 3, 1)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        hidden = F.relu(self.fc1(self.features(x - self.mean[:, None, None])))
        return {"logits": self.fc2(self.drop(hidden)), "aux": self.aux(hidden)}


def frozen():
    net = Net()
    net.conv.requires_grad_(False)
    return net


class InPlace(Net):
    def features(self, x):
        x = F.max_pool2d(F.relu_(self.norm(self.conv(x))), 2)
        y = self.three(x)
        y *= 1.0
        return torch.cat([self.one(x), y], 1).flatten(1)


class OtherOrder(Net):
    def features(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        three = self.three(x)
        return torch.cat([self.one(x), three], 1).flatten(1)


class Products(Net):
    def __init__(self):
        super().__init__()
        self.w1, self.b1 = nn.Parameter(self.fc1.weight.detach()), nn.Parameter(self.fc1.bias.detach())
        self.w2, self.b2 = nn.Parameter(self.fc2.weight.detach().t().contiguous()), nn.Parameter(self.fc2.bias.detach())
        del self.fc1, self.fc2

    def forward(self, x):
        return self.drop(F.relu(self.features(x) @ self.w1.t() + self.b1)) @ self.w2 + self.b2


class Convolutions(Net):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(8, 16, (4, 5)), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        x = self.features(x).unflatten(1, (8, 4, 5))
        return self.fc2(self.drop(F.relu(self.fc1(x)))).flatten(1)


class Folded(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.net.norm = nn.Identity()
        self.net.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        return self.net(x)


class Shortcut(nn.Module):
    """ReLU first, in place or not, and a shortcut around it."""

    def __init__(self, act):
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)
        self.act = act

    def forward(self, x):
        x = self.stem(x)
        x = self.conv(self.act(x)) + x
        return self.fc(F.relu(x).mean((2, 3)))


def shortcut():
    return Shortcut(nn.ReLU())


def corrupted():
    return Shortcut(nn.ReLU(inplace=True))


def bounded():
    return Shortcut(nn.ReLU6())


class Exponential(nn.Module):
    def forward(self, x):
        return torch.exp(x) / torch.exp(x).sum(1, keepdim=True)


class Tied(Shortcut):
    def __init__(self):
        super().__init__(nn.ReLU())
        self.other = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        x = self.conv(F.relu(x)) + x
        x = self.conv(F.relu(x)) + x
        return self.fc(F.relu(x).mean((2, 3)))


class HalfBlock(Net):
    def __init__(self):
        super().__init__()
        self.three = self.three.half()

    def features(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return torch.cat([self.one(x), self.three(x.half()).float()], 1).flatten(1)


class Single(Net):
    def features(self, x):
        return super().features(x).float().to(x.dtype)


def converted():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 4))


def flipped():
    torch.manual_seed(0)
    net = converted()
    with torch.no_grad():
        net[0].weight.copy_(net[0].weight.flip(2, 3))
    return net


def source():
    torch.manual_seed(0)
    return converted()


def source_again():
    return source()


class Summed(Shortcut):
    """Its sum written by a function of the body and the shortcut."""

    def __init__(self, total):
        super().__init__(nn.ReLU())
        self.total = total

    def forward(self, x):
        x = self.stem(x)
        x = self.total(self, self.conv(F.relu(x)), x)
        return self.fc(F.relu(x).mean((2, 3)))


def halved():
    return Summed(lambda net, body, x: body + 0.5 * x)


def by_count():
    return Summed(lambda net, body, x: (body + x) * len(x) / 4)


def detached():
    return Summed(lambda net, body, x: body + x.detach())


def earlier():
    return Summed(lambda net, body, x: F.relu(body) + x)


def random():
    def kept(net, body):
        return torch.rand(len(body), 1, 1, 1, dtype=body.dtype) > 0.5 if net.training else 1

    return Summed(lambda net, body, x: kept(net, body) * body + x)

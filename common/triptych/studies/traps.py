"""Errors in the code of the texts, each with what PyTorch really does; tests/studies/test_traps.py shows every one."""

NAMES = (
    "The text names the convolutions of a block conv2D{} with a number that comes twice. add_module with a name that "
    "is taken replaces the earlier module in its place, without a word: of three convolutions two are left. Where the "
    "channels do not change nothing fails, and the network is another one than the text says."
)
RELU = (
    "The text writes nn.ReLU(x) where it means nn.functional.relu(x). It builds a module whose inplace is x and "
    "applies nothing; the next layer is handed a module, and raises TypeError."
)
DENSE = (
    "The text's dense layer takes 512*3*3 features, which is five poolings of 96x96 images, and is fed with 28x28. "
    "28 halves to 14, 7, 3, 1: the fifth pooling raises RuntimeError, and with four the dense layer does, at 512 "
    "features for 4608."
)
GREY = (
    "The text's VGG-16 takes 3 channels and is fed the grey images of Fashion-MNIST: the first convolution raises "
    "RuntimeError. Here a network takes the channels of its data."
)
DROPOUT = (
    "Dropout stands between convolution and max pooling. In training what it keeps is doubled, and of a 2x2 window "
    "the largest that is left goes on; in evaluation nothing is doubled, so every pooling hands on less than the "
    "network was trained with. Measured with a quarter of the channels after four epochs: 0.45 on average behind the "
    "last pooling in training, 0.07 in evaluation; 38 % of test images right with dropout left on, 12 % without. "
    "Later epochs catch up: in PyTorch 31 % after ten, 44 % after sixteen."
)

"""The smallest complete training: a data set, a network, a loss; then forward, backward and update, over and over; then a test.

    python examples/lenet_fashion.py

The network is LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998) with ReLU and max-pooling: convolutions find small patterns,
pooling forgets exactly where they were, and the linear layers decide which of ten garments has them.
"""

import time

import minicnn as mc
from minicnn.data import DataLoader, FashionMNIST, transforms
from minicnn.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

mc.seed(0)                          # initial weights and order of the images: the same in every run
EPOCHS = 5

train_set, test_set = FashionMNIST("train"), FashionMNIST("test")
normalize = transforms.Normalize(*transforms.channel_statistics(train_set))     # pixels of mean 0 and variance 1
train = DataLoader(train_set, batch_size=32, transform=normalize, shuffle=True)
test = DataLoader(test_set, batch_size=500, transform=normalize)

network = Sequential(                                                           # (N, 1, 28, 28)
    conv1=Conv2d(1, 6, 5, padding=2), relu1=ReLU(), pool1=MaxPool2d(2),         # (N, 6, 14, 14)
    conv2=Conv2d(6, 16, 5), relu2=ReLU(), pool2=MaxPool2d(2),                   # (N, 16, 5, 5)
    flatten=Flatten(),                                                          # (N, 400)
    fc3=Linear(400, 120), relu3=ReLU(),
    fc4=Linear(120, 84), relu4=ReLU(),
    fc5=Linear(84, 10))                                                         # (N, 10): a score for each class
sgd = mc.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
schedule = mc.optim.StepLR(sgd, step_size=EPOCHS - 2, gamma=0.2)                # smaller steps at the end


def accuracy(batches):
    """The fraction of images whose highest score is that of their class."""
    correct = count = 0
    with mc.no_grad():                                  # saves nothing for backward
        for x, labels in batches:
            scores = network(mc.Tensor(x)).numpy()      # (N, 10)
            correct += (scores.argmax(axis=1) == labels).sum()
            count += len(labels)
    return correct / count


print(f"{sum(p.size for p in network.parameters()):,} parameters, {len(train_set):,} training images")
start = time.perf_counter()
for epoch in range(EPOCHS):
    total = 0.0
    for x, labels in train.epoch(epoch):                # another order in each epoch
        loss = mc.ops.cross_entropy(network(mc.Tensor(x)), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        total += loss.item()
    schedule.step()
    print(f"epoch {epoch + 1}   loss {total / len(train):.3f}   test accuracy {accuracy(test):.1%}   {time.perf_counter() - start:.1f} s")

-- A shop, and its policy: what a rule forbids is refused by the database itself.

CREATE TABLE policy (
    today INTEGER NOT NULL,
    window INTEGER NOT NULL,
    gold_window INTEGER NOT NULL,
    most INTEGER NOT NULL
);
CREATE TABLE customers (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    address TEXT NOT NULL,
    member TEXT NOT NULL CHECK (member IN ('basic', 'gold'))
);
CREATE TABLE products (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    price INTEGER NOT NULL CHECK (price > 0)
);
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    product_id INTEGER NOT NULL REFERENCES products,
    option TEXT NOT NULL,
    stock INTEGER NOT NULL CONSTRAINT stock_is_never_below_0 CHECK (stock >= 0)
);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES customers,
    status TEXT NOT NULL CHECK (status IN ('placed', 'shipped', 'delivered', 'cancelled')),
    placed INTEGER NOT NULL,
    delivered INTEGER CHECK ((status = 'delivered') = (delivered IS NOT NULL)),
    address TEXT NOT NULL
        CONSTRAINT an_address_is_like_3_Mill_Lane_Porto CHECK (
            typeof(address) = 'text'
            AND address GLOB '[0-9]* [A-Z]*, [A-Z]*'
            AND address NOT GLOB '*[^A-Za-z0-9 ,.-]*'
        )
);
CREATE TABLE order_lines (
    order_id INTEGER NOT NULL REFERENCES orders,
    item_id INTEGER NOT NULL REFERENCES items,
    quantity INTEGER NOT NULL CONSTRAINT a_quantity_is_1_or_more CHECK (quantity >= 1),
    price INTEGER NOT NULL CHECK (price > 0),
    PRIMARY KEY (order_id, item_id)
);
CREATE TABLE refunds (
    order_id INTEGER NOT NULL REFERENCES orders,
    amount INTEGER NOT NULL CONSTRAINT a_refund_is_1_or_more CHECK (amount >= 1)
);

-- Only an order that is placed can be cancelled or changed.
CREATE TRIGGER cancel_only_what_is_placed BEFORE UPDATE OF status ON orders
WHEN NOT (OLD.status = 'placed' AND NEW.status = 'cancelled')
BEGIN
    SELECT RAISE(ABORT, 'only an order that is placed can be cancelled');
END;
CREATE TRIGGER redirect_only_what_is_placed BEFORE UPDATE OF address ON orders
WHEN OLD.status <> 'placed'
BEGIN
    SELECT RAISE(ABORT, 'only an order that is placed can be changed');
END;
CREATE TRIGGER change_lines_by_the_rules BEFORE UPDATE ON order_lines
BEGIN
    SELECT RAISE(ABORT, 'only an order that is placed can be changed')
    WHERE (SELECT status FROM orders WHERE id = OLD.order_id) <> 'placed';
    SELECT RAISE(ABORT, 'an item is exchanged only for another option of the same product')
    WHERE (SELECT product_id FROM items WHERE id = NEW.item_id)
        IS NOT (SELECT product_id FROM items WHERE id = OLD.item_id);
    SELECT RAISE(ABORT, 'the order holds that item already')
    WHERE NEW.item_id <> OLD.item_id AND EXISTS (
        SELECT 1 FROM order_lines WHERE order_id = NEW.order_id AND item_id = NEW.item_id
    );
    SELECT RAISE(ABORT, 'that is more of one item than an order may hold')
    WHERE NEW.quantity > OLD.quantity AND NEW.quantity > (SELECT most FROM policy);
    SELECT RAISE(ABORT, 'there are not enough in stock')
    WHERE (SELECT stock FROM items WHERE id = NEW.item_id)
        < NEW.quantity - iif(NEW.item_id = OLD.item_id, OLD.quantity, 0);
    SELECT RAISE(ABORT, 'orders and prices stay as they were agreed')
    WHERE NEW.order_id <> OLD.order_id OR NEW.price <> OLD.price;
END;

-- What is no longer ordered goes back into stock, what is now comes out of it.
CREATE TRIGGER stock_follows_lines AFTER UPDATE OF item_id, quantity ON order_lines
BEGIN
    UPDATE items SET stock = stock + OLD.quantity WHERE id = OLD.item_id;
    UPDATE items SET stock = stock - NEW.quantity WHERE id = NEW.item_id;
END;
CREATE TRIGGER stock_follows_orders AFTER UPDATE OF status ON orders
BEGIN
    UPDATE items SET stock = stock + (
        SELECT quantity FROM order_lines WHERE order_id = NEW.id AND item_id = items.id
    )
    WHERE id IN (SELECT item_id FROM order_lines WHERE order_id = NEW.id);
END;

-- Refunds: of what may be refunded, in time, and never more than was paid.
CREATE TRIGGER refund_by_the_rules BEFORE INSERT ON refunds
BEGIN
    SELECT RAISE(ABORT, 'there is no such order')
    WHERE NOT EXISTS (SELECT 1 FROM orders WHERE id = NEW.order_id);
    SELECT RAISE(ABORT, 'only an order that is cancelled or delivered can be refunded')
    WHERE (SELECT status FROM orders WHERE id = NEW.order_id) NOT IN ('cancelled', 'delivered');
    SELECT RAISE(ABORT, 'the order was delivered too long ago for a refund')
    FROM orders JOIN customers ON customers.id = customer_id, policy
    WHERE orders.id = NEW.order_id
        AND today - delivered > iif(member = 'gold', gold_window, window);
    SELECT RAISE(ABORT, 'refunds of an order never exceed what was paid for it')
    WHERE NEW.amount > (
        SELECT sum(quantity * price) FROM order_lines WHERE order_id = NEW.order_id
    ) - (SELECT coalesce(sum(amount), 0) FROM refunds WHERE order_id = NEW.order_id);
END;
CREATE TRIGGER refunds_stay BEFORE UPDATE ON refunds
BEGIN
    SELECT RAISE(ABORT, 'a refund that is made stays made');
END;
CREATE TRIGGER refunds_are_kept BEFORE DELETE ON refunds
BEGIN
    SELECT RAISE(ABORT, 'a refund that is made stays made');
END;
